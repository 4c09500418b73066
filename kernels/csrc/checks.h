// What the operators demand of their arguments. torch.ops can be called by anyone, so it is checked here too.
#pragma once

#include <string>
#include <vector>

#include "bcos_math.h"
#include "stable.h"

namespace bcos {
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Pair = std::vector<int64_t>;

inline std::string shape_text(const Tensor& t) {
  std::string text = "(";
  for (int64_t i = 0; i < t.dim(); ++i) text += (i ? ", " : "") + std::to_string(t.size(i));
  return text + ")";
}

inline std::string device_text(const Tensor& t) {
  if (t.is_cpu()) return "cpu";
  return (t.is_cuda() ? "cuda:" : "another device, index ") + std::to_string(t.get_device_index());
}

inline ScalarType computing_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline void check_like(const char* name, const Tensor& t, const Tensor& lin, ScalarType type) {
  STD_TORCH_CHECK(t.scalar_type() == type, name, ": expected dtype ", torch::headeronly::toString(type), ", got ",
                  torch::headeronly::toString(t.scalar_type()));
  STD_TORCH_CHECK(t.is_cpu() == lin.is_cpu() && t.get_device_index() == lin.get_device_index(), name,
                  ": expected the device of lin, ", device_text(lin), ", got ", device_text(t));
}

inline void check_shape(const char* name, const Tensor& t, const std::vector<int64_t>& expected) {
  bool same = t.dim() == static_cast<int64_t>(expected.size());
  std::string text;
  for (size_t i = 0; i < expected.size(); ++i) {
    same = same && t.size(static_cast<int64_t>(i)) == expected[i];
    text += (i ? ", " : "") + std::to_string(expected[i]);
  }
  STD_TORCH_CHECK(same, name, ": expected shape (", text, "), got ", shape_text(t));
}

inline void check_pair(const char* name, const Pair& values, int64_t least, int64_t (&out)[2]) {
  STD_TORCH_CHECK(values.size() == 2, name, ": expected two numbers (height, width), got ", values.size());
  for (int i = 0; i < 2; ++i) {
    STD_TORCH_CHECK(values[i] >= least, name, ": expected numbers >= ", least, ", got ", values[i]);
    out[i] = values[i];
  }
}

// The checked arguments of both operators.
struct Problem {
  Window window;
  int64_t batch, groups;
  int64_t in_channels, height, width;    // of x
  int64_t out_channels, rows, columns;   // of lin
  ScalarType type;

  Extent in_extent() const { return {batch, groups, in_channels / groups, height * width}; }
  Extent out_extent() const { return {batch, groups, out_channels / groups, rows * columns}; }
  std::vector<int64_t> norm_shape() const { return {batch, groups, rows, columns}; }
};

inline Problem checked(const Tensor& lin, const Tensor& x, double b, const Pair& kernel_size, const Pair& stride,
                       const Pair& padding, const Pair& dilation, int64_t groups) {
  STD_TORCH_CHECK(b >= 1 && std::isfinite(b), "b: expected a finite number >= 1, got ", b);
  STD_TORCH_CHECK(x.dim() == 4, "x: expected 4 dimensions (N, C, H, W), got shape ", shape_text(x));
  STD_TORCH_CHECK(lin.dim() == 4, "lin: expected 4 dimensions (N, O, P, Q), got shape ", shape_text(lin));
  const ScalarType type = lin.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
                      type == ScalarType::BFloat16,
                  "lin: expected float32, float64, float16 or bfloat16, got ", torch::headeronly::toString(type));
  check_like("x", x, lin, type);

  Problem problem{};
  check_pair("kernel_size", kernel_size, 1, problem.window.kernel);
  check_pair("stride", stride, 1, problem.window.stride);
  check_pair("padding", padding, 0, problem.window.padding);
  check_pair("dilation", dilation, 1, problem.window.dilation);
  problem.batch = x.size(0), problem.groups = groups, problem.type = type;
  problem.in_channels = x.size(1), problem.height = x.size(2), problem.width = x.size(3);
  problem.out_channels = lin.size(1), problem.rows = lin.size(2), problem.columns = lin.size(3);
  STD_TORCH_CHECK(groups >= 1 && problem.in_channels % groups == 0 && problem.out_channels % groups == 0,
                  "groups: expected a divisor of the channels of x and lin, got ", groups, " for ",
                  problem.in_channels, " and ", problem.out_channels);
  int64_t size[2];
  for (int i = 0; i < 2; ++i) {
    const Window& w = problem.window;
    const int64_t room = x.size(2 + i) + 2 * w.padding[i] - w.dilation[i] * (w.kernel[i] - 1) - 1;
    STD_TORCH_CHECK(room >= 0, "kernel_size: the window does not fit into x of shape ", shape_text(x));
    size[i] = room / w.stride[i] + 1;
  }
  check_shape("lin", lin, {problem.batch, problem.out_channels, size[0], size[1]});
  return problem;
}

}  // namespace bcos
