// Layers of narrow groups by the loops of grouped.h: which ones, and the tensors around them.
#pragma once

#include "fused_layer.h"
#include "grouped.h"

namespace bcos {
namespace cpu {

template <class T>
const GroupedLoops<T>* grouped_loops() {
  if constexpr (std::is_same_v<T, float>) return grouped_float_loops();
  if constexpr (std::is_same_v<T, torch::headeronly::BFloat16>) return grouped_bfloat16_loops();
  return nullptr;
}

// The layer, if the loops take it; then its planes, up to four of them, are of a size that a thread can have: 64 MiB each.
template <class T>
std::optional<GroupedLayer> grouped_layer(const Problem& problem, const Tensor& x) {
  constexpr int64_t kMostVectors = 1 << 20;
  const GroupedLoops<T>* loops = grouped_loops<T>();
  if (!loops || problem.groups < 2 || problem.max_out != 1 || !problem.is_scaled()) return std::nullopt;
  const int64_t group = problem.in_channels / problem.groups;
  if (group == 0 || problem.in_channels != problem.out_channels || problem.in_channels < loops->lanes) return std::nullopt;
  if (loops->lanes % group != 0 || !is_surely_channels_last(x)) return std::nullopt;
  if (sizeof(T) == 2 && group == 16 && bfloat16_products()) return std::nullopt;  // its products take pairs: 1.1 to 1.4 times as fast
  const GroupedLayer layer{problem.batch, problem.in_channels, problem.height, problem.width, problem.rows, problem.columns,
                           group,         {problem.axis(0), problem.axis(1)},  loops->lanes};
  for (const Plane& plane : {layer.padded(), layer.spread()})
    if (plane.height > kMostVectors / plane.width) return std::nullopt;
  return layer;
}

// Calls f(tap, channel of the group, lane, index of the filter's element in `weight`) for all of a block's filters.
template <class F>
void each_element(const GroupedLayer& s, const Tensor& weight, int64_t block, const F& f) {
  const int64_t stride[4] = {weight.stride(0), weight.stride(1), weight.stride(2), weight.stride(3)};
  for (int64_t tap = 0; tap < s.taps(); ++tap) {
    const int64_t place = tap / s.axis[1].kernel * stride[2] + tap % s.axis[1].kernel * stride[3];
    for (int64_t channel = 0; channel < s.group; ++channel)
      for (int64_t lane = 0; lane < s.lanes; ++lane)
        f(tap, channel, lane, (s.first(block) + lane) * stride[0] + channel * stride[1] + place);
  }
}

// Unit filters as forward has them, or flipped as backward has them; weight in float32.
inline Floats grouped_filters(const GroupedLayer& s, const Tensor& weight, bool flipped) {
  const std::unique_ptr<double[]> factors = filter_factors(weight, ScalarType::Float);
  Floats filters(s.blocks() * s.vectors() * s.lanes);
  const float* w = weight.const_data_ptr<float>();
  for (int64_t block = 0; block < s.blocks(); ++block) {
    float* out = filters.get() + block * s.vectors() * s.lanes;
    each_element(s, weight, block, [&](int64_t tap, int64_t channel, int64_t lane, int64_t at) {
      const float value = static_cast<float>(static_cast<double>(w[at]) * factors[s.first(block) + lane]);
      const int64_t filter = lane % s.group;
      if (flipped)
        out[((s.taps() - 1 - tap) * s.group + filter) * s.lanes + lane - filter + channel] = value;
      else
        out[(tap * s.group + channel) * s.lanes + lane] = value;
    });
  }
  return filters;
}

template <class T>
std::optional<Responses> grouped_responses(const Problem& problem, const Tensor& x, const Tensor& weight,
                                           const std::optional<Tensor>& exponent, double eps) {
  const std::optional<GroupedLayer> layer = grouped_layer<T>(problem, x);
  if (!layer) return std::nullopt;
  const Tensor values = exponent_values(exponent, problem, x);
  const Floats filters = grouped_filters(*layer, dense(wide_filters(weight, problem)), false);
  Responses all;
  all.norm = torch::stable::new_empty(x, problem.norm_shape(), ScalarType::Float);
  all.y = empty_in_format(x, problem.y_shape(), problem.type);
  const GroupedForward<T> f{*layer,
                            x.const_data_ptr<T>(),
                            filters.get(),
                            values_or_null<float>(values),
                            static_cast<float>(eps),
                            all.norm.mutable_data_ptr<float>(),
                            all.y.mutable_data_ptr<T>()};
  share(layer->tasks(), [&](int64_t begin, int64_t end) { grouped_loops<T>()->forward(f, begin, end); });
  return all;
}

template <class T>
std::optional<Gradients> grouped_gradients(const Problem& problem, const Tensor& grad_any, const Tensor& x,
                                           const Tensor& weight_any, const std::optional<Tensor>& exponent,
                                           const Tensor& y_any, const Tensor& norm_any, const Needs& needs) {
  const std::optional<GroupedLayer> layer = grouped_layer<T>(problem, x);
  if (!layer) return std::nullopt;
  const GroupedLayer& s = *layer;
  const Tensor weight = dense(wide_filters(weight_any, problem)), values = exponent_values(exponent, problem, x);
  const Tensor grad = like_y(grad_any, x), y = like_y(y_any, x), norm = as_contiguous(norm_any);
  const Floats flipped = grouped_filters(s, weight, true);
  Gradients result;
  if (needs.x) result.x = empty_in_format(x, problem.x_shape(), problem.type);
  const int64_t tasks = s.tasks(), shares = std::min<int64_t>(tasks, torch::stable::get_num_threads());
  const int64_t of_share = s.blocks() * s.lanes, size = of_share * s.vectors();
  const Floats sums(needs.weight ? shares * size : 0);
  if (needs.weight) std::memset(sums.get(), 0, sizeof(float) * shares * size);
  const std::unique_ptr<double[]> exponent_sums(new double[needs.exponent ? shares * of_share : 0]());
  const GroupedBackward<T> b{s,
                             grad.const_data_ptr<T>(),
                             x.const_data_ptr<T>(),
                             y.const_data_ptr<T>(),
                             norm.const_data_ptr<float>(),
                             values_or_null<float>(values),
                             problem.detach,
                             flipped.get(),
                             needs.x ? result.x.template mutable_data_ptr<T>() : nullptr,
                             needs.weight ? sums.get() : nullptr,
                             needs.exponent ? exponent_sums.get() : nullptr};
  share(shares, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) grouped_loops<T>()->backward(b, i, tasks * i / shares, tasks * (i + 1) / shares);
  });
  if (needs.weight) {
    result.unit = empty_like(weight, ScalarType::Float);
    float* out = result.unit.mutable_data_ptr<float>();
    for (int64_t block = 0; block < s.blocks(); ++block) {
      const float* of_block = sums.get() + block * s.vectors() * s.lanes;
      each_element(s, result.unit, block, [&](int64_t tap, int64_t channel, int64_t lane, int64_t at) {
        float total = 0;
        for (int64_t k = 0; k < shares; ++k) total += of_block[k * size + (tap * s.group + channel) * s.lanes + lane];
        out[at] = total;
      });
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
