// Depthwise layers by the loops of depthwise.h: which ones, and the tensors around them.
#pragma once

#include "depthwise.h"
#include "fused_layer.h"

namespace bcos {
namespace cpu {

// Memory for vectors, which the loops want aligned.
class AlignedFloats {
 public:
  explicit AlignedFloats(int64_t count) : memory_(new float[count + kFloats]()) {
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    data_ = memory_.get() + (kFloats - address / sizeof(float) % kFloats) % kFloats;
  }
  float* data() const { return data_; }

 private:
  static constexpr int64_t kFloats = 16;
  std::unique_ptr<float[]> memory_;
  float* data_;
};

// The layer, if the loops take it; then its planes are of a size that a thread can have.
inline std::optional<DepthwiseLayer> depthwise_layer(const Problem& problem, const Tensor& x) {
  constexpr int64_t kMostVectors = 4 << 20;
  const DepthwiseLoops* loops = depthwise_loops();
  const bool is_depthwise = problem.groups > 1 && problem.groups == problem.in_channels &&
                            problem.groups == problem.out_channels && problem.max_out == 1;
  if (!loops || !is_depthwise || !problem.is_scaled() || problem.in_channels < loops->lanes) return std::nullopt;
  if (problem.type != ScalarType::Float || !is_surely_channels_last(x)) return std::nullopt;
  const DepthwiseLayer layer{problem.batch, problem.in_channels, problem.height,   problem.width,
                             problem.rows,  problem.columns,     {problem.axis(0), problem.axis(1)}, loops->lanes};
  for (const Plane& plane : {layer.padded(), layer.spread()})
    if (plane.height > kMostVectors / plane.width) return std::nullopt;
  return layer;
}

// Unit filters, (block, tap, lane); or from the last tap to the first.
inline AlignedFloats depthwise_filters(const DepthwiseLayer& s, const Tensor& weight, bool flipped) {
  const std::unique_ptr<double[]> factors = filter_factors(weight, ScalarType::Float);
  AlignedFloats filters(s.blocks() * s.taps() * s.lanes);
  const float* w = weight.const_data_ptr<float>();
  float* out = filters.data();
  for (int64_t block = 0; block < s.blocks(); ++block)
    for (int64_t i = 0; i < s.taps(); ++i) {
      const int64_t tap = flipped ? s.taps() - 1 - i : i;
      const int64_t place = tap / s.axis[1].kernel * weight.stride(2) + tap % s.axis[1].kernel * weight.stride(3);
      for (int64_t c = s.first(block); c < s.first(block) + s.lanes; ++c)
        *out++ = static_cast<float>(static_cast<double>(w[c * weight.stride(0) + place]) * factors[c]);
    }
  return filters;
}

inline std::optional<Responses> depthwise_responses(const Problem& problem, const Tensor& x, const Tensor& weight,
                                                    const std::optional<Tensor>& exponent, double eps) {
  const std::optional<DepthwiseLayer> layer = depthwise_layer(problem, x);
  if (!layer) return std::nullopt;
  const Tensor values = exponent_values(exponent, problem, x);
  const AlignedFloats filters = depthwise_filters(*layer, dense(weight), false);
  Responses all;
  all.norm = torch::stable::new_empty(x, Sizes{layer->batch, layer->channels, layer->rows, layer->columns}, ScalarType::Float);
  all.y = empty_in_format(x, problem.y_shape(), problem.type);
  all.winner = none_like(x, ScalarType::Byte);
  const DepthwiseForward f{*layer,
                           x.const_data_ptr<float>(),
                           filters.data(),
                           values_or_null<float>(values),
                           static_cast<float>(eps),
                           all.norm.mutable_data_ptr<float>(),
                           all.y.mutable_data_ptr<float>()};
  share(layer->tasks(), [&](int64_t begin, int64_t end) { depthwise_loops()->forward(f, begin, end); });
  return all;
}

inline std::optional<Gradients> depthwise_gradients(const Problem& problem, const Tensor& grad_any, const Tensor& x,
                                                    const Tensor& weight_any, const std::optional<Tensor>& exponent,
                                                    const Tensor& y_any, const Tensor& norm_any, const Needs& needs) {
  const std::optional<DepthwiseLayer> layer = depthwise_layer(problem, x);
  if (!layer) return std::nullopt;
  const DepthwiseLayer& s = *layer;
  const Tensor weight = dense(weight_any), values = exponent_values(exponent, problem, x);
  const Tensor grad = like_y(grad_any, x), y = like_y(y_any, x), norm = torch::stable::contiguous(norm_any);
  const AlignedFloats flipped = depthwise_filters(s, weight, true);
  Gradients result{none_like(x, problem.type), none_like(x, problem.weight_type),
                   none_like(x, exponent ? exponent->scalar_type() : ScalarType::Float)};
  if (needs.x) result.x = empty_in_format(x, problem.x_shape(), problem.type);
  const int64_t tasks = s.tasks(), shares = std::min<int64_t>(tasks, torch::stable::get_num_threads());
  const int64_t of_share = s.blocks() * s.lanes, size = of_share * s.taps();
  const AlignedFloats sums(needs.weight ? shares * size : 0);
  const std::unique_ptr<double[]> exponent_sums(new double[needs.exponent ? shares * of_share : 0]());
  const DepthwiseBackward b{s,
                            grad.const_data_ptr<float>(),
                            x.const_data_ptr<float>(),
                            y.const_data_ptr<float>(),
                            norm.const_data_ptr<float>(),
                            values_or_null<float>(values),
                            problem.detach,
                            flipped.data(),
                            needs.x ? result.x.mutable_data_ptr<float>() : nullptr,
                            needs.weight ? sums.data() : nullptr,
                            needs.exponent ? exponent_sums.get() : nullptr};
  share(shares, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) depthwise_loops()->backward(b, i, tasks * i / shares, tasks * (i + 1) / shares);
  });
  if (needs.weight) {
    result.weight = empty_like(weight, ScalarType::Float);  // of the unit filters: projected by the caller
    float* out = result.weight.mutable_data_ptr<float>();
    for (int64_t block = 0; block < s.blocks(); ++block)
      for (int64_t tap = 0; tap < s.taps(); ++tap)
        for (int64_t i = 0; i < s.lanes; ++i) {
          float total = 0;
          for (int64_t k = 0; k < shares; ++k) total += sums.data()[k * size + (block * s.taps() + tap) * s.lanes + i];
          out[(s.first(block) + i) * result.weight.stride(0) + tap / s.axis[1].kernel * result.weight.stride(2) +
              tap % s.axis[1].kernel * result.weight.stride(3)] = total;
        }
  }
  if (needs.exponent) {
    Tensor sum = torch::stable::new_empty(x, problem.exponent_per_output ? Sizes{s.channels} : Sizes{}, ScalarType::Double);
    double* out = sum.mutable_data_ptr<double>();
    if (!problem.exponent_per_output) *out = 0;
    for (int64_t c = 0; c < s.channels; ++c) {
      const int64_t block = c / s.lanes;
      double total = 0;
      for (int64_t k = 0; k < shares; ++k) total += exponent_sums[k * of_share + block * s.lanes + c - s.first(block)];
      problem.exponent_per_output ? out[c] = total : *out += total;
    }
    result.exponent = torch::stable::to(sum, exponent->scalar_type());
  }
  return result;
}

}  // namespace cpu
}  // namespace bcos
