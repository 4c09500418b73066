// Layers computed by our own products (product.h): which ones, in what tasks, and the tensors around them.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>

#include "../operators.h"
#include "instruction_set.h"
#include "product.h"

namespace bcos {
namespace cpu {

// 1 / |w| of filters that are each in one piece; a filter of zeros gets 1.
struct FilterFactors {
  template <class W>
  static BCOS_INLINE void run(const W* weight, int64_t length, double* factors, int64_t begin, int64_t end) {
    for (int64_t filter = begin; filter < end; ++filter) {
      const W* w = weight + filter * length;
      double squares = 0;
#pragma omp simd reduction(+ : squares)
      for (int64_t i = 0; i < length; ++i) squares += static_cast<double>(w[i]) * static_cast<double>(w[i]);
      factors[filter] = squares > 0 ? 1 / std::sqrt(squares) : 1;
    }
  }
};

template <class T>
const Products<T>* products() {
  if constexpr (std::is_same_v<T, float>) return float_products();
  if constexpr (std::is_same_v<T, torch::headeronly::BFloat16>) return bfloat16_products();
  return nullptr;
}

// Dense, and beyond doubt channels-last to PyTorch too, whose choice y's layout follows: every stride counts, also that of
// an axis of size 1.
inline bool is_surely_channels_last(const Tensor& t) {
  const int64_t channels = t.size(1), row = t.size(3) * channels, image = t.size(2) * row;
  return t.numel() > 0 && channels > 1 && t.stride(1) == 1 && t.stride(3) == channels && t.stride(2) == row &&
         (t.size(0) == 1 ? t.stride(0) >= image : t.stride(0) == image) && !t.is_contiguous();
}

inline int64_t ratio_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Small images go together, since few pixels do not fill a tile: so many in a task that each thread gets as many tasks.
inline int64_t images_of(const Layer& y, int64_t bytes, int64_t shares) {
  constexpr int64_t kBytes = 512 << 10;
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t most = std::max<int64_t>(1, std::min(kBytes / std::max<int64_t>(1, bytes), y.batch / (shares * threads)));
  const int64_t tasks = ratio_up(ratio_up(y.batch, most), threads) * threads;
  return std::max<int64_t>(1, ratio_up(y.batch, std::min(y.batch, tasks)));
}

// The layer as the products see it, cut for forward: what a task reads of x stays in the second-level cache.
inline Layer layer_of(const Problem& problem, int64_t element_size) {
  Layer y{};
  const bool flat = problem.groups == 1 && (problem.is_linear || problem.is_pointwise());
  y.groups = problem.groups, y.batch = flat ? 1 : problem.batch, y.channels = problem.in_channels / problem.groups;
  y.height = flat ? problem.batch * problem.height * problem.width : problem.height, y.width = flat ? 1 : problem.width;
  y.rows = flat ? y.height : problem.rows, y.columns = flat ? 1 : problem.columns;
  y.outputs = problem.out_channels / problem.groups, y.max_out = problem.max_out;
  for (int i = 0; i < 2; ++i) {
    y.kernel[i] = problem.kernel[i], y.stride[i] = problem.stride[i];
    y.padding[i] = problem.padding[i], y.dilation[i] = problem.dilation[i];
  }
  constexpr int64_t kBytes = 192 << 10, kShares = 8;
  const int64_t row = element_size * y.width * y.channels * y.stride[0];
  y.band = std::max<int64_t>(1, kBytes / std::max<int64_t>(1, row));
  const int64_t least = ratio_up(y.batch * y.rows, kShares * torch::stable::get_num_threads());
  if (flat) {
    y.band = std::max<int64_t>(56, std::min(y.band, least) / 56 * 56);
  } else {
    y.band = std::max(y.kernel[0], std::min(y.band, std::max<int64_t>(1, least)));
  }
  y.band = std::min(y.band, std::max<int64_t>(1, y.rows));
  y.band = ratio_up(y.rows, ratio_up(y.rows, y.band));
  y.images = 1;
  if (!flat && y.band == y.rows) y.images = images_of(y, row * y.rows, 2);
  return y;
}

template <class F>
void share(int64_t tasks, const F& f) {
  torch::stable::parallel_for(0, tasks, 1, f);
}

// f(group, begin, end) for each group that has some of the tasks [begin, end), numbered group after group.
template <class F>
void each_group(int64_t tasks_of_group, int64_t begin, int64_t end, const F& f) {
  for (int64_t group = begin / tasks_of_group; begin < end; ++group) {
    const int64_t first = group * tasks_of_group, stop = std::min(end, first + tasks_of_group);
    f(group, begin - first, stop - first);
    begin = stop;
  }
}

template <class P>
P* moved(P* data, int64_t elements) {  // null stays
  return data ? data + elements : data;
}

// Filters that may be given in float32 beside a shorter x.
template <class T, class F>
void with_filters(const Tensor& weight, const double* factors, bool is_linear, const F& f) {
  const auto filters = [&](auto tag) {
    using W = typename decltype(tag)::type;
    return Filters<W>{weight.const_data_ptr<W>(),
                      {weight.stride(0), weight.stride(1), is_linear ? 0 : weight.stride(2), is_linear ? 0 : weight.stride(3)},
                      factors};
  };
  if (weight.scalar_type() == ScalarType::Float)
    f(filters(Type<float>{}));
  else
    f(filters(Type<T>{}));
}

// Each group's filters into `count` panels of its own, `size` floats; `pack` and `pack_wide` for filters of T and of float32.
template <class T>
void pack_groups(const Layer& layer, const Tensor& weight, const double* factors, bool is_linear, int64_t count, int64_t size,
                 float* panels, void (*pack)(const Layer&, const Filters<T>&, float*, int64_t, int64_t),
                 void (*pack_wide)(const Layer&, const Filters<float>&, float*, int64_t, int64_t)) {
  with_filters<T>(weight, factors, is_linear, [&](const auto& filters) {
    share(layer.groups * count, [&](int64_t from, int64_t to) {
      each_group(count, from, to, [&](int64_t g, int64_t begin, int64_t end) {
        const auto of_group = filters.group(g, layer.filters());
        if constexpr (std::is_same_v<std::decay_t<decltype(filters)>, Filters<T>>)
          pack(layer, of_group, panels + g * size, begin, end);
        else
          pack_wide(layer, of_group, panels + g * size, begin, end);
      });
    });
  });
}

inline std::unique_ptr<double[]> filter_factors(const Tensor& weight, ScalarType type) {
  const int64_t filters = weight.size(0), length = filters ? weight.numel() / filters : 0;
  std::unique_ptr<double[]> factors(new double[filters]);
  with_type(type, [&](auto tag) {
    using W = typename decltype(tag)::type;
    const W* data = weight.const_data_ptr<W>();
    torch::stable::parallel_for(0, filters, std::max<int64_t>(1, 32768 / std::max<int64_t>(1, length)),
                                [&](int64_t begin, int64_t end) {
                                  run<FilterFactors>(data, length, factors.get(), begin, end);
                                });
  });
  return factors;
}

// A buffer for vectors, aligned with the cache's lines: what crosses them is read twice. Written before it is read.
class Floats {
 public:
  explicit Floats(int64_t count) : memory_(new float[count + 64 + kFloats]) {
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    data_ = memory_.get() + (kFloats - address / sizeof(float) % kFloats) % kFloats;
  }
  float* get() const { return data_; }

 private:
  static constexpr int64_t kFloats = 16;
  std::unique_ptr<float[]> memory_;
  float* data_;
};

// Groups as wide as half of AVX-512's panels at least: of narrower ones a product would compute more zeros than responses.
inline bool can_fuse(const Problem& problem, const Tensor& x) {
  constexpr int64_t kLeastWidth = 16;
  if (!problem.is_scaled() || problem.max_out > 2) return false;
  if (problem.length() == 0 || problem.in_channels == 0 || problem.out_channels == 0) return false;
  if (problem.groups > 1 && std::min(problem.in_channels, problem.out_channels) < kLeastWidth * problem.groups) return false;
  if (reinterpret_cast<uintptr_t>(x.const_data_ptr()) % sizeof(float)) return false;  // bfloat16 is read in pairs
  return problem.is_linear || is_surely_channels_last(x);
}

template <class T>
std::optional<Responses> fused_responses(const Problem& problem, const Tensor& x, const Tensor& weight_any,
                                         const std::optional<Tensor>& exponent, double eps) {
  const Products<T>* p = products<T>();
  if (!p || !can_fuse(problem, x)) return std::nullopt;
  Tensor weight = dense(weight_any);
  const bool half = sizeof(T) == 2;
  // Half precision has the filters rounded as any product would have them, brought to a length between one and two by a
  // power of two, which rounds nothing; what remains of the length divides the responses.
  if (half && weight.scalar_type() == ScalarType::Float) weight = torch::stable::to(weight, problem.type);
  const std::unique_ptr<double[]> factors = filter_factors(weight, half ? problem.type : ScalarType::Float);
  std::unique_ptr<double[]> rests;
  if (half) {
    rests.reset(new double[weight.size(0)]);
    for (int64_t i = 0; i < weight.size(0); ++i) {
      int exponent_of_two;
      rests[i] = std::frexp(factors[i], &exponent_of_two);  // in [1/2, 1)
      factors[i] = std::ldexp(1.0, exponent_of_two);
    }
  }
  const Layer layer = layer_of(problem, sizeof(T));
  const int64_t panels_size = p->forward_size(layer), scale_size = half ? p->scale_size(layer) : 0;
  const Floats panels(layer.groups * panels_size), scale(layer.groups * scale_size);
  for (int64_t g = 0; half && g < layer.groups; ++g)
    p->arrange(layer, rests.get() + g * layer.filters(), scale.get() + g * scale_size);
  pack_groups<T>(layer, weight, factors.get(), problem.is_linear, p->forward_panels(layer), panels_size, panels.get(),
                 p->pack_forward, p->pack_forward_wide);
  const Tensor values = exponent_values(exponent, problem, x);
  const float* exponents = values_or_null<float>(values);
  Responses all;
  all.norm = torch::stable::new_empty(x, problem.norm_shape(), ScalarType::Float);
  all.y = empty_in_format(x, problem.y_shape(), problem.type);
  if (problem.max_out > 1) all.winner = empty_in_format(x, problem.y_shape(), ScalarType::Byte);
  uint8_t* winners = problem.max_out > 1 ? all.winner.mutable_data_ptr<uint8_t>() : nullptr;
  const T* x_data = x.const_data_ptr<T>();
  T* y_data = all.y.mutable_data_ptr<T>();
  float* norm_data = all.norm.mutable_data_ptr<float>();
  share(layer.groups * layer.tasks(), [&](int64_t from, int64_t to) {
    each_group(layer.tasks(), from, to, [&](int64_t g, int64_t begin, int64_t end) {
      const Forward<T> f{layer,
                         x_data + g * layer.channels,
                         panels.get() + g * panels_size,
                         half ? scale.get() + g * scale_size : nullptr,
                         moved(exponents, g * layer.outputs),
                         static_cast<float>(eps),
                         norm_data + g * layer.rows * layer.columns,
                         y_data + g * layer.outputs,
                         moved(winners, g * layer.outputs)};
      p->forward(f, begin, end);
    });
  });
  return all;
}

// In the format of x, as forward wrote it.
inline Tensor like_y(const Tensor& t, const Tensor& x) {
  if (t.dim() == 2) return as_contiguous(t);
  if (is_channels_last(t)) return t;  // the strides of axes of size 1 are not used here
  Tensor result = empty_in_format(x, shape_of(t), t.scalar_type());
  torch::stable::copy_(result, t);
  return result;
}

// Tasks of backward: as many pixels as stay in the cache with dL/dl, since the filters' gradient is fetched and put back
// once for each task.
inline void cut_for_backward(Layer& y, int64_t element_size) {
  if (y.is_pointwise()) {
    y.band = std::min<int64_t>(y.rows, std::max<int64_t>(y.band, 224));
    return;
  }
  constexpr int64_t kBytes = 1 << 20;
  const int64_t row = element_size * (y.columns * y.filters() + y.width * y.stride[0] * y.channels);
  const int64_t threads = torch::stable::get_num_threads();
  int64_t band = std::max(2 * y.kernel[0], kBytes / row);
  if (y.batch < threads) band = std::min(band, ratio_up(y.batch * y.rows, threads));
  band = std::max<int64_t>(1, std::min(band, y.rows));
  y.band = ratio_up(y.rows, ratio_up(y.rows, band));
  y.images = y.band < y.rows ? 1 : images_of(y, element_size * y.height * y.width * y.channels, 1);
}

// Whether a task's gradients stay in the cache, and the filters' gradient is not fetched and put back for too few pixels.
template <class T>
bool pays_in_backward(const Layer& y, const Products<T>& p, const Needs& needs) {
  constexpr int64_t kTask = 2 << 20, kFilters = 1 << 20, kLeastPixels = 100, kWidened = 4 << 20;
  if (sizeof(T) == 2) return p.gradient_size(y) <= kWidened;
  const int64_t pixels = y.images * y.band * y.columns;
  if (static_cast<int64_t>(sizeof(T)) * pixels * y.filters() > kTask || y.channels < 16) return false;
  return !needs.weight || (p.gradient_size(y) <= kFilters && pixels >= kLeastPixels);
}

template <class T>
std::optional<Gradients> fused_gradients(const Problem& problem, const Tensor& grad_any, const Tensor& x,
                                         const Tensor& weight_any, const std::optional<Tensor>& exponent,
                                         const Tensor& y_any, const Tensor& norm_any, const Tensor& winner_any,
                                         const Needs& needs) {
  const Products<T>* p = products<T>();
  if (!p || !can_fuse(problem, x)) return std::nullopt;
  Layer layer = layer_of(problem, sizeof(T));
  cut_for_backward(layer, sizeof(T));
  if (!pays_in_backward<T>(layer, *p, needs)) return std::nullopt;
  const Tensor weight = dense(weight_any);
  const std::unique_ptr<double[]> factors = filter_factors(weight, problem.weight_type);
  const int64_t panels_size = p->backward_size(layer);
  const Floats panels(needs.x ? layer.groups * panels_size : 0);
  if (needs.x)
    pack_groups<T>(layer, weight, factors.get(), problem.is_linear, p->backward_panels(layer), panels_size, panels.get(),
                   p->pack_backward, p->pack_backward_wide);
  const Tensor grad = like_y(grad_any, x), y = like_y(y_any, x), norm = as_contiguous(norm_any);
  const Tensor winner = problem.max_out > 1 ? like_y(winner_any, x) : Tensor();
  const Tensor values = exponent_values(exponent, problem, x);
  Gradients result;
  if (needs.x) result.x = empty_in_format(x, problem.x_shape(), problem.type);
  T* grad_x = needs.x ? result.x.template mutable_data_ptr<T>() : nullptr;
  const T *grad_data = grad.const_data_ptr<T>(), *x_data = x.const_data_ptr<T>(), *y_data = y.const_data_ptr<T>();
  const uint8_t* winners = problem.max_out > 1 ? winner.const_data_ptr<uint8_t>() : nullptr;
  const float *norm_data = norm.const_data_ptr<float>(), *exponents = values_or_null<float>(values);
  // Group after group, and a share's tasks follow each other: most groups have all of theirs in one share.
  const int64_t tasks = layer.groups * layer.tasks(), shares = std::min<int64_t>(tasks, torch::stable::get_num_threads());
  const int64_t size = p->gradient_size(layer), step = layer.groups * size;
  const auto first_task = [&](int64_t i) { return tasks * i / shares; };
  const Floats sums(needs.weight ? shares * step : 0);
  const std::unique_ptr<double[]> exponent_sums(new double[needs.exponent ? shares * problem.out_channels : 0]());
  share(shares, [&](int64_t first_share, int64_t end_share) {
    for (int64_t i = first_share; i < end_share; ++i)
      each_group(layer.tasks(), first_task(i), first_task(i + 1), [&](int64_t g, int64_t begin, int64_t end) {
        const Backward<T> b{layer,
                            grad_data + g * layer.outputs,
                            x_data + g * layer.channels,
                            y_data + g * layer.outputs,
                            moved(winners, g * layer.outputs),
                            norm_data + g * layer.rows * layer.columns,
                            moved(exponents, g * layer.outputs),
                            problem.detach,
                            needs.x ? panels.get() + g * panels_size : nullptr,
                            moved(grad_x, g * layer.channels),
                            needs.weight ? sums.get() + i * step + g * size : nullptr,
                            needs.exponent ? exponent_sums.get() + i * problem.out_channels + g * layer.outputs : nullptr};
        p->backward(b, begin, end);
      });
  });
  if (needs.weight) {
    result.unit = empty_like(weight, ScalarType::Float);
    const int64_t stride[4] = {result.unit.stride(0), result.unit.stride(1), problem.is_linear ? 0 : result.unit.stride(2),
                               problem.is_linear ? 0 : result.unit.stride(3)};
    float* out = result.unit.mutable_data_ptr<float>();
    share(layer.groups * layer.filters(), [&](int64_t from, int64_t to) {
      each_group(layer.filters(), from, to, [&](int64_t g, int64_t begin, int64_t end) {
        int64_t first = 0, last = shares;  // of the shares that have some of the group's tasks
        while (first_task(first + 1) <= g * layer.tasks()) ++first;
        while (first_task(last - 1) >= (g + 1) * layer.tasks()) --last;
        p->unpack(layer, sums.get() + first * step + g * size, last - first, step, out + g * layer.filters() * stride[0], stride,
                  begin, end);
      });
    });
  }
  if (needs.exponent) {
    Tensor sum = torch::stable::new_empty(x, problem.exponent_per_output ? Sizes{problem.out_channels} : Sizes{}, ScalarType::Double);
    double* out = sum.mutable_data_ptr<double>();
    if (!problem.exponent_per_output) *out = 0;
    for (int64_t o = 0; o < problem.out_channels; ++o) {
      double total = 0;
      for (int64_t i = 0; i < shares; ++i) total += exponent_sums[i * problem.out_channels + o];
      problem.exponent_per_output ? out[o] = total : *out += total;
    }
    result.exponent = torch::stable::to(sum, exponent->scalar_type());
  }
  return result;
}

}  // namespace cpu
}  // namespace bcos
