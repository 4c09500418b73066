// What the operators demand of their arguments. torch.ops can be called by anyone, so it is checked here too.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bcos_math.h"
#include "stable.h"

namespace bcos {
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = std::vector<int64_t>;

inline std::string list_text(const Sizes& values) {
  std::string text = "(";
  for (size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + ")";
}

inline Sizes shape_of(const Tensor& t) {
  Sizes shape;
  for (int64_t i = 0; i < t.dim(); ++i) shape.push_back(t.size(i));
  return shape;
}

inline std::string shape_text(const Tensor& t) { return list_text(shape_of(t)); }

inline std::string device_text(const Tensor& t) {
  if (t.is_cpu()) return "cpu";
  return (t.is_cuda() ? "cuda:" : "another device, index ") + std::to_string(t.get_device_index());
}

inline ScalarType computing_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline void check_device(const char* name, const Tensor& t, const Tensor& x) {
  STD_TORCH_CHECK(t.is_cpu() == x.is_cpu() && t.get_device_index() == x.get_device_index(), name,
                  ": expected the device of x, ", device_text(x), ", got ", device_text(t));
}

inline void check_shape(const char* name, const Tensor& t, const Sizes& shape) {
  STD_TORCH_CHECK(shape_of(t) == shape, name, ": expected shape ", list_text(shape), ", got ", shape_text(t));
}

inline void check_like(const char* name, const Tensor& t, const Tensor& x, ScalarType type, const Sizes& shape) {
  STD_TORCH_CHECK(t.scalar_type() == type, name, ": expected dtype ", torch::headeronly::toString(type), ", got ",
                  torch::headeronly::toString(t.scalar_type()));
  check_device(name, t, x);
  check_shape(name, t, shape);
}

inline void check_pair(const char* name, const Sizes& values, int64_t least, int64_t (&out)[2]) {
  constexpr int64_t kMost = INT32_MAX;  // products of two stay within 64 bits
  STD_TORCH_CHECK(values.size() == 2, name, ": expected two numbers (height, width), got ", values.size());
  for (int i = 0; i < 2; ++i) {
    STD_TORCH_CHECK(values[i] >= least && values[i] <= kMost, name, ": expected numbers from ", least, " to ", kMost,
                    ", got ", values[i]);
    out[i] = values[i];
  }
}

// One call of a layer, checked. A linear layer is a 1x1 convolution of one image with one row: batch 1, height 1, the
// rows of x (all dimensions but the last as one) as its columns.
struct Problem {
  bool is_linear;
  int64_t kernel[2], stride[2], padding[2], dilation[2];
  int64_t batch, groups, max_out;
  int64_t in_channels, height, width;     // of x
  int64_t out_channels, rows, columns;    // of y; there are out_channels * max_out filters
  ScalarType type, weight_type;           // of x, y and their gradients; of weight and its gradient
  double b;                               // where there is no exponent tensor
  bool has_exponent, exponent_per_output;
  bool detach;

  bool is_scaled() const { return has_exponent || b != 1; }
  Extent in_extent() const { return {batch, groups, in_channels / groups, height * width}; }
  Extent out_extent() const { return {batch, groups, out_channels / groups, rows * columns}; }
  AxisWindow axis(int i) const { return {kernel[i], stride[i], padding[i], dilation[i]}; }
  bool is_pointwise() const { return axis(0).is_identity() && axis(1).is_identity(); }
  int64_t length() const { return is_linear ? columns : batch; }
  Problem piece(int64_t length) const {
    Problem result = *this;
    (is_linear ? result.width : result.batch) = length;
    if (is_linear) result.columns = length;
    return result;
  }
  Sizes x_shape() const { return is_linear ? Sizes{width, in_channels} : Sizes{batch, in_channels, height, width}; }
  Sizes y_shape() const {
    return is_linear ? Sizes{columns, out_channels} : Sizes{batch, out_channels, rows, columns};
  }
  Sizes norm_shape() const { return is_linear ? Sizes{columns, 1} : Sizes{batch, groups, rows, columns}; }
};

inline void check_layer(Problem& problem, const Tensor& x, const Tensor& weight, const std::optional<Tensor>& exponent,
                        double b, int64_t groups, int64_t max_out, bool detach) {
  STD_TORCH_CHECK(exponent || (b >= 1 && std::isfinite(b)), "b: expected a finite number >= 1, got ", b);
  const ScalarType type = x.scalar_type(), weight_type = weight.scalar_type();
  const bool is_half = type == ScalarType::Half || type == ScalarType::BFloat16;
  STD_TORCH_CHECK(is_half || type == ScalarType::Float || type == ScalarType::Double,
                  "x: expected float32, float64, float16 or bfloat16, got ", torch::headeronly::toString(type));
  STD_TORCH_CHECK(weight_type == type || (is_half && weight_type == ScalarType::Float), "weight: expected the dtype of x, ",
                  torch::headeronly::toString(type), is_half ? ", or Float" : "", ", got ",
                  torch::headeronly::toString(weight_type));
  check_device("weight", weight, x);
  const int64_t filters = weight.size(0), channels = x.size(problem.is_linear ? x.dim() - 1 : 1);
  STD_TORCH_CHECK(max_out >= 1 && max_out <= 255 && filters % max_out == 0,
                  "max_out: expected a divisor of the ", filters, " filters from 1 to 255, got ", max_out);
  const int64_t outputs = filters / max_out;
  STD_TORCH_CHECK(groups >= 1 && channels % groups == 0 && outputs % groups == 0,
                  "groups: expected a positive divisor of the ", channels, " input channels and the ", outputs,
                  " outputs, got ", groups);
  STD_TORCH_CHECK(weight.size(1) == channels / groups, "x: expected ", weight.size(1), " channels in each of ", groups,
                  " group(s) for a weight of shape ", shape_text(weight), ", got shape ", shape_text(x));
  if (exponent) {
    const ScalarType exponent_type = exponent->scalar_type();
    STD_TORCH_CHECK(exponent_type == ScalarType::Float || exponent_type == ScalarType::Double,
                    "exponent: expected float32 or float64, got ", torch::headeronly::toString(exponent_type));
    check_device("exponent", *exponent, x);
    STD_TORCH_CHECK(exponent->dim() == 0 || shape_of(*exponent) == Sizes{outputs}, "exponent: expected shape () or (",
                    outputs, "), got shape ", shape_text(*exponent));
    problem.exponent_per_output = exponent->dim() == 1;
  }
  problem.groups = groups, problem.max_out = max_out, problem.in_channels = channels, problem.out_channels = outputs;
  problem.type = type, problem.weight_type = weight_type;
  problem.b = b, problem.has_exponent = exponent.has_value(), problem.detach = detach;
}

inline Problem checked_conv2d(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& exponent, double b,
                              const Sizes& stride, const Sizes& padding, const Sizes& dilation, int64_t groups,
                              int64_t max_out, bool detach) {
  STD_TORCH_CHECK(x.dim() == 4, "x: expected 4 dimensions (N, C, H, W), got shape ", shape_text(x));
  STD_TORCH_CHECK(weight.dim() == 4, "weight: expected 4 dimensions (O * max_out, C / groups, kh, kw), got shape ",
                  shape_text(weight));
  Problem problem{};
  check_layer(problem, x, weight, exponent, b, groups, max_out, detach);
  check_pair("weight's window", {weight.size(2), weight.size(3)}, 1, problem.kernel);
  check_pair("stride", stride, 1, problem.stride);
  check_pair("padding", padding, 0, problem.padding);
  check_pair("dilation", dilation, 1, problem.dilation);
  problem.batch = x.size(0), problem.height = x.size(2), problem.width = x.size(3);
  int64_t size[2];
  for (int i = 0; i < 2; ++i) {
    const AxisWindow w = problem.axis(i);
    const int64_t room = x.size(2 + i) + 2 * w.padding - w.dilation * (w.kernel - 1) - 1;
    STD_TORCH_CHECK(room >= 0, "weight: its window does not fit into x of shape ", shape_text(x));
    size[i] = room / w.stride + 1;
  }
  problem.rows = size[0], problem.columns = size[1];
  return problem;
}

inline Problem checked_linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& exponent, double b,
                              int64_t max_out, bool detach) {
  STD_TORCH_CHECK(x.dim() >= 1, "x: expected at least 1 dimension (..., F), got a scalar");
  STD_TORCH_CHECK(weight.dim() == 2, "weight: expected 2 dimensions (O * max_out, F), got shape ", shape_text(weight));
  Problem problem{};
  problem.is_linear = true;
  for (int i = 0; i < 2; ++i) problem.kernel[i] = problem.stride[i] = problem.dilation[i] = 1;
  check_layer(problem, x, weight, exponent, b, 1, max_out, detach);
  problem.batch = problem.height = problem.rows = 1, problem.width = 1;
  for (int64_t i = 0; i + 1 < x.dim(); ++i) problem.width *= x.size(i);
  problem.columns = problem.width;
  return problem;
}

// The tensors that only backward is given. Where there is no scale it looks at neither y nor norm, without MaxOut not
// at winner.
inline void check_saved(const Problem& problem, const Tensor& x, const Tensor& grad, const Tensor& y,
                        const Tensor& norm, const Tensor& winner, const Sizes& y_shape, const Sizes& norm_shape) {
  check_like("grad", grad, x, problem.type, y_shape);
  if (problem.is_scaled()) {
    check_like("y", y, x, problem.type, y_shape);
    check_like("norm", norm, x, computing_type(problem.type), norm_shape);
  }
  if (problem.max_out > 1) check_like("winner", winner, x, ScalarType::Byte, y_shape);
}

}  // namespace bcos
