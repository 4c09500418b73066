// Uncentred batch norm in training: checks, layouts and results, once for both devices. docs/maths.md has the formula.
//
//   forward   mean, var of each channel over N, H, W;  y = x f + bias,  f = weight / sqrt(var + eps)
//   backward  s = sum of grad x:  grad_weight = s / sqrt(var + eps),  grad_bias = sum of grad,
//             grad_x = grad f + k (x - mean),  k = -weight s / (M (var + eps)^(3/2)),  M = N H W
//             (explanation mode, `detach`: f is a constant, and k = 0)
//
// A device supplies Device::forward(Forward<T>, like) and Device::backward(Backward<T>, like); `like` says where
// scratch memory is to be.
#pragma once

#include <optional>
#include <tuple>

#include "operators.h"

namespace bcos {
namespace batch_norm {
using torch::headeronly::MemoryFormat;

// Elements in memory order: channels innermost (NHWC), or the pixels of one plane (NCHW). Nothing between them.
struct Shape {
  bool channels_last;
  int64_t batch, channels, pixels;

  BCOS_HOST_DEVICE int64_t count() const { return batch * pixels; }  // M, values of one channel
};

template <class T>
struct Forward {
  using A = computing_t<T>;
  Shape shape;
  const T* x;
  const A *weight, *bias;  // null: ones, zeros
  A eps;
  T* y;
  A *mean, *var;
};

template <class T>
struct Backward {
  using A = computing_t<T>;
  Shape shape;
  const T *grad, *x;
  const A *weight, *mean, *var;
  A eps;
  bool detach;
  T* grad_x;                  // these three are null where not wanted
  A *grad_weight, *grad_bias;
};

// The step of a dimension of size 1 is never taken, and says nothing.
inline bool is_packed(const Tensor& t, bool channels_last) {
  const int order[2][4] = {{3, 2, 1, 0}, {1, 3, 2, 0}};
  int64_t step = 1;
  for (const int i : order[channels_last]) {
    if (t.size(i) != 1 && t.stride(i) != step) return false;
    step *= t.size(i);
  }
  return true;
}

// Longer runs make longer loops: what could be both is taken as planes only where there is one channel.
inline bool is_channels_last(const Tensor& t) {
  return is_packed(t, true) && !(t.size(1) == 1 && is_packed(t, false));
}

inline Tensor packed(const Tensor& t, bool channels_last) {
  if (is_packed(t, channels_last)) return t;
  return torch::stable::contiguous(t, channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

inline void check_input(const Tensor& x) {
  STD_TORCH_CHECK(x.dim() == 4, "x: expected 4 dimensions (N, C, H, W), got shape ", shape_text(x));
  const ScalarType type = x.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
                      type == ScalarType::BFloat16,
                  "x: expected float32, float64, float16 or bfloat16, got ", torch::headeronly::toString(type));
  STD_TORCH_CHECK(x.numel() > 0, "x: expected at least one value per channel, got shape ", shape_text(x));
}

// The result in its own layout, where that could not be written directly.
inline Tensor finished(Tensor result, const Tensor& written) {
  if (written.get() != result.get()) torch::stable::copy_(result, written);
  return result;
}

// One number for each channel, in the dtype that x is computed in.
inline Tensor per_channel(const char* name, const Tensor& t, const Tensor& x) {
  check_device(name, t, x);
  check_shape(name, t, {x.size(1)});
  const ScalarType type = computing_type(x.scalar_type());
  return torch::stable::contiguous(t.scalar_type() == type ? t : torch::stable::to(t, type));
}

inline std::optional<Tensor> per_channel(const char* name, const std::optional<Tensor>& t, const Tensor& x) {
  return t ? std::optional<Tensor>(per_channel(name, *t, x)) : std::nullopt;
}

template <class A>
const A* data_or_null(const std::optional<Tensor>& t) {
  return t ? t->const_data_ptr<A>() : nullptr;
}

inline Tensor new_channels(const Tensor& x, bool wanted = true) {
  return torch::stable::new_empty(x, std::vector<int64_t>{wanted ? x.size(1) : 0}, computing_type(x.scalar_type()));
}

inline Shape shape_of(const Tensor& x, bool channels_last) {
  return {channels_last, x.size(0), x.size(1), x.size(2) * x.size(3)};
}

// empty_like keeps any dense layout; one that is neither NCHW nor NHWC is written as NCHW first.
inline Tensor to_write(const Tensor& result, bool channels_last) {
  return is_packed(result, channels_last) ? result : torch::stable::new_empty(result, result.sizes());
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& x_any, std::optional<Tensor> weight,
                                           std::optional<Tensor> bias, double eps,
                                           bool /*detach: backward's business*/) {
  check_input(x_any);
  const typename Device::Guard guard(x_any);
  weight = per_channel("weight", weight, x_any), bias = per_channel("bias", bias, x_any);
  const Tensor result = torch::stable::empty_like(x_any), mean = new_channels(x_any), var = new_channels(x_any);
  const bool channels_last = is_channels_last(result);
  const Tensor x = packed(x_any, channels_last), y = to_write(result, channels_last);
  with_type(x.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = computing_t<T>;
    Device::forward(Forward<T>{shape_of(x, channels_last), x.const_data_ptr<T>(), data_or_null<A>(weight),
                               data_or_null<A>(bias), static_cast<A>(eps), y.mutable_data_ptr<T>(),
                               mean.mutable_data_ptr<A>(), var.mutable_data_ptr<A>()},
                    x);
  });
  return {finished(result, y), mean, var};
}

// What is not wanted is an empty tensor. The gradients of weight and bias come in the dtype of the statistics.
template <class Device>
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_any, const Tensor& x_any, std::optional<Tensor> weight,
                                            const Tensor& mean_any, const Tensor& var_any, double eps, bool detach,
                                            bool need_x, bool need_weight, bool need_bias) {
  check_input(x_any);
  const ScalarType type = x_any.scalar_type();
  STD_TORCH_CHECK(grad_any.scalar_type() == type, "grad: expected dtype ", torch::headeronly::toString(type),
                  ", got ", torch::headeronly::toString(grad_any.scalar_type()));
  check_device("grad", grad_any, x_any);
  check_shape("grad", grad_any, {x_any.size(0), x_any.size(1), x_any.size(2), x_any.size(3)});
  const typename Device::Guard guard(x_any);
  weight = per_channel("weight", weight, x_any);
  const Tensor mean = per_channel("mean", mean_any, x_any), var = per_channel("var", var_any, x_any);
  const Tensor result =
      need_x ? torch::stable::empty_like(x_any) : torch::stable::new_empty(x_any, std::vector<int64_t>{0});
  const Tensor grad_weight = new_channels(x_any, need_weight), grad_bias = new_channels(x_any, need_bias);
  const bool channels_last = is_channels_last(need_x ? result : x_any);
  const Tensor grad = packed(grad_any, channels_last), x = packed(x_any, channels_last);
  const Tensor grad_x = need_x ? to_write(result, channels_last) : result;
  with_type(type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = computing_t<T>;
    Device::backward(Backward<T>{shape_of(x, channels_last), grad.const_data_ptr<T>(), x.const_data_ptr<T>(),
                                 data_or_null<A>(weight), mean.const_data_ptr<A>(), var.const_data_ptr<A>(),
                                 static_cast<A>(eps), detach, need_x ? grad_x.mutable_data_ptr<T>() : nullptr,
                                 need_weight ? grad_weight.mutable_data_ptr<A>() : nullptr,
                                 need_bias ? grad_bias.mutable_data_ptr<A>() : nullptr},
                     x);
  });
  return {finished(result, grad_x), grad_weight, grad_bias};
}

}  // namespace batch_norm
}  // namespace bcos
