// The operators as sequences of steps. A device supplies the drivers:
//   Device::filters(f)  for functors over filters,
//   Device::reduce(f)   for functors over (n, g, s) that sum over the channels of a group,
//   Device::apply(f)    for functors over (n, c, s),
//   Device::windows(f)  for functors over (plane, row, column),
// and may take over whole problems, which it then computes in its own way:
//   Device::kTakesProblems, Device::takes_forward(problem, x, weight), Device::forward(problem, x, weight, exponent, eps),
//   Device::takes_backward(problem, x, weight), Device::backward(problem, grad, x, weight, exponent, y, norm, winner, needs).
#pragma once

#include <array>
#include <tuple>
#include <type_traits>

#include "checks.h"

namespace bcos {

// ---- Tensors as (N, C, S) ----
// Four dimensions (N, C, H, W) whose spatial two can be walked as one, or two (S, C): the rows of a linear layer.

inline bool is_flat(const Tensor& t) {
  return t.dim() == 2 || t.size(2) == 1 || t.size(3) == 1 || t.stride(2) == t.size(3) * t.stride(3);
}

inline Tensor flat(const Tensor& t) { return is_flat(t) ? t : torch::stable::contiguous(t); }

inline int64_t pixel_count(const Tensor& t) { return t.dim() == 2 ? t.size(0) : t.size(2) * t.size(3); }
inline int64_t pixel_stride(const Tensor& t) {
  return t.dim() == 2 ? t.stride(0) : t.size(3) == 1 ? t.stride(2) : t.stride(3);
}

inline Layout layout_of(std::initializer_list<const Tensor*> tensors) {
  bool channels = true, rows = true;
  for (const Tensor* t : tensors) {  // the stride of a dimension of size 1 is never used
    if (!t->defined()) continue;
    channels = channels && (t->size(1) == 1 || t->stride(1) == 1);
    rows = rows && (pixel_count(*t) == 1 || pixel_stride(*t) == 1);
  }
  return channels ? Layout::kChannels : rows ? Layout::kRows : Layout::kStrided;
}

// A tensor that is not there gives a view of nothing.
template <class T, Layout layout>
View<T, layout> view(const Tensor& t) {
  using Element = std::remove_const_t<T>;
  if (!t.defined()) return {nullptr, 0, 0, 0};
  T* data;
  if constexpr (std::is_const_v<T>)
    data = t.const_data_ptr<Element>();
  else
    data = t.mutable_data_ptr<Element>();
  return {data, t.dim() == 2 ? 0 : t.stride(0), t.stride(1), pixel_stride(t)};
}

// ---- Dispatch on run-time values ----

template <class T>
struct Type {
  using type = T;
};

template <class F>
void with_type(ScalarType type, const F& f) {
  switch (type) {
    case ScalarType::Float: return f(Type<float>{});
    case ScalarType::Double: return f(Type<double>{});
    case ScalarType::Half: return f(Type<torch::headeronly::Half>{});
    default: return f(Type<torch::headeronly::BFloat16>{});  // the checks let nothing else through
  }
}

template <class F>
void with_layout(Layout layout, const F& f) {
  switch (layout) {
    case Layout::kRows: return f(std::integral_constant<Layout, Layout::kRows>{});
    case Layout::kChannels: return f(std::integral_constant<Layout, Layout::kChannels>{});
    default: return f(std::integral_constant<Layout, Layout::kStrided>{});
  }
}

// Power and whether there is MaxOut; without either there is nothing to compute, and f is not called.
template <class F>
void with_formula(const Problem& problem, const F& f) {
  const auto with_max_out = [&](auto power) {
    if (problem.max_out > 1) return f(power, std::true_type{});
    if constexpr (decltype(power)::value != Power::kPlain) f(power, std::false_type{});
  };
  if (!problem.is_scaled()) return with_max_out(std::integral_constant<Power, Power::kPlain>{});
  if (!problem.has_exponent && problem.b == 2) return with_max_out(std::integral_constant<Power, Power::kSquare>{});
  return with_max_out(std::integral_constant<Power, Power::kPower>{});
}

// ---- Calls of PyTorch's own operators ----

template <size_t count>
void call(const char* name, std::array<StableIValue, count>& stack) {
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, "", stack.data(), TORCH_ABI_VERSION));
}

using torch::stable::detail::from;

inline Tensor empty_like(const Tensor& t, ScalarType type) {
  std::array<StableIValue, 6> stack{from(t),
                                    from(std::optional<ScalarType>(type)),
                                    from(std::nullopt),
                                    from(std::nullopt),
                                    from(std::nullopt),
                                    from(std::nullopt)};
  call("aten::empty_like", stack);
  return torch::stable::detail::to<Tensor>(stack[0]);
}

inline Tensor none_like(const Tensor& t, ScalarType type) { return torch::stable::new_empty(t, Sizes{0}, type); }

inline Tensor mm(const Tensor& a, const Tensor& b) {
  std::array<StableIValue, 2> stack{from(a), from(b)};
  call("aten::mm", stack);
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// A fresh tensor's elements in another shape, without being a view of it.
inline Tensor reshaped(const Tensor& t, const Sizes& shape) {
  std::array<StableIValue, 2> stack{from(t), from(shape)};
  call("aten::_unsafe_view", stack);
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// The vendor's convolution, with whatever PyTorch's switches say (TF32, cuDNN's benchmark and deterministic modes).
struct Convolution {
  Sizes stride, padding, dilation;
  int64_t groups;

  Tensor forward(const Tensor& x, const Tensor& unit) const {
    std::array<StableIValue, 9> stack{from(x),       from(unit),     from(std::nullopt),  from(stride), from(padding),
                                      from(dilation), from(false), from(Sizes{0, 0}), from(groups)};
    call("aten::convolution", stack);
    return torch::stable::detail::to<Tensor>(stack[0]);
  }

  std::tuple<Tensor, Tensor> backward(const Tensor& grad_lin, const Tensor& x, const Tensor& unit, bool need_x,
                                      bool need_weight) const {
    const bool wanted[] = {need_x, need_weight, false};
    const torch::headeronly::HeaderOnlyArrayRef<bool> mask(wanted, 3);
    std::array<StableIValue, 11> stack{from(grad_lin), from(x),        from(unit),   from(std::nullopt),
                                       from(stride),   from(padding),  from(dilation), from(false),
                                       from(Sizes{0, 0}), from(groups), from(mask)};
    call("aten::convolution_backward", stack);
    std::array<Tensor, 3> results;
    for (size_t i = 0; i < 3; ++i) results[i] = torch::stable::detail::to<Tensor>(stack[i]);
    return {results[0], results[1]};
  }
};

// The vendor's matrix product: x (rows, F), unit (O, F).
struct Product {
  Tensor forward(const Tensor& x, const Tensor& unit) const { return mm(x, torch::stable::transpose(unit, 0, 1)); }

  std::tuple<Tensor, Tensor> backward(const Tensor& grad_lin, const Tensor& x, const Tensor& unit, bool need_x,
                                      bool need_weight) const {
    return {need_x ? mm(grad_lin, unit) : Tensor(),
            need_weight ? mm(torch::stable::transpose(grad_lin, 0, 1), x) : Tensor()};
  }
};

// ---- Filters ----

inline bool is_channels_last(const Tensor& t) {
  if (t.dim() != 4) return false;
  int64_t expected = 1;
  for (const int axis : {1, 3, 2, 0}) {
    if (t.size(axis) != 1 && t.stride(axis) != expected) return false;
    expected *= t.size(axis);
  }
  return true;
}

// With every filter in one piece.
inline Tensor dense(const Tensor& weight) {
  return weight.is_contiguous() || is_channels_last(weight) ? weight : torch::stable::contiguous(weight);
}

// The dtypes of a weight and of x that go with it: the same, or float32 with half precision.
template <class F>
void with_weight_type(const Problem& problem, const F& f) {
  with_type(problem.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (problem.weight_type == problem.type) return f(Type<T>{}, Type<T>{});
    if constexpr (sizeof(T) == 2) f(Type<float>{}, Type<T>{});
  });
}

template <class Device>
Tensor unit_filters(const Tensor& weight, const Problem& problem) {
  const Tensor unit = empty_like(weight, problem.type);
  const int64_t filters = weight.size(0);
  with_weight_type(problem, [&](auto weight_tag, auto tag) {
    using W = typename decltype(weight_tag)::type;
    using T = typename decltype(tag)::type;
    Device::filters(UnitFilters<W, T>{filters, filters ? weight.numel() / filters : 0, weight.const_data_ptr<W>(),
                                      unit.mutable_data_ptr<T>()});
  });
  return unit;
}

// dL/dw in the layout of `original`; `weight` is its dense form
template <class Device>
Tensor weight_gradient(const Tensor& original, const Tensor& weight, const Tensor& unit_gradient_any,
                       const Problem& problem) {
  Tensor unit_gradient = empty_like(weight, problem.type);  // element for element beside the weight
  bool same = true;
  for (int64_t i = 0; i < weight.dim(); ++i)
    same = same && (weight.size(i) == 1 || unit_gradient_any.stride(i) == unit_gradient.stride(i));
  if (same)
    unit_gradient = unit_gradient_any;
  else
    torch::stable::copy_(unit_gradient, unit_gradient_any);
  Tensor gradient = empty_like(weight, problem.weight_type);
  const int64_t filters = weight.size(0);
  with_weight_type(problem, [&](auto weight_tag, auto tag) {
    using W = typename decltype(weight_tag)::type;
    using T = typename decltype(tag)::type;
    Device::filters(Project<W, T>{filters, filters ? weight.numel() / filters : 0, weight.const_data_ptr<W>(),
                                  unit_gradient.const_data_ptr<T>(), gradient.mutable_data_ptr<W>()});
  });
  if (original.get() == weight.get()) return gradient;
  Tensor result = empty_like(original, problem.weight_type);
  torch::stable::copy_(result, gradient);
  return result;
}

// ---- Windows ----

// One axis after the other: (planes, height, width) -> (planes, rows, columns), or back where transposed.
template <class Device, class A, bool transposed>
Tensor window_sum(const Tensor& source, const Problem& problem, bool root, double eps) {
  const int64_t planes = problem.batch * problem.groups;
  const int64_t rows = transposed ? problem.height : problem.rows;
  const int64_t columns = transposed ? problem.width : problem.columns;
  const int64_t source_rows = transposed ? problem.rows : problem.height;
  const int64_t source_columns = transposed ? problem.columns : problem.width;
  Tensor sums = source;
  if (!problem.axis(0).is_identity()) {
    sums = torch::stable::new_empty(source, Sizes{problem.batch, problem.groups, rows, source_columns});
    const bool is_last = problem.axis(1).is_identity();
    Device::windows(WindowSum<A, 0, transposed>{planes, rows, source_columns, source_rows, problem.axis(0),
                                                source.const_data_ptr<A>(), sums.mutable_data_ptr<A>(),
                                                root && is_last, static_cast<A>(eps)});
    if (is_last) return sums;
  }
  const Tensor result = torch::stable::new_empty(source, Sizes{problem.batch, problem.groups, rows, columns});
  Device::windows(WindowSum<A, 1, transposed>{planes, rows, columns, source_columns, problem.axis(1),
                                              sums.const_data_ptr<A>(), result.mutable_data_ptr<A>(), root,
                                              static_cast<A>(eps)});
  return result;
}

// (N, G, P, Q) of the computing type
template <class Device>
Tensor patch_norm(const Tensor& x_any, const Problem& problem, double eps) {
  const Tensor x = flat(x_any);
  const bool is_pointwise = problem.is_pointwise();
  const Tensor energy = torch::stable::new_empty(
      x, Sizes{problem.batch, problem.groups, problem.height, problem.width}, computing_type(problem.type));
  Tensor norm = energy;
  with_type(problem.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = computing_t<T>;
    with_layout(layout_of({&x}), [&](auto layout) {
      constexpr Layout kLayout = decltype(layout)::value;
      Device::reduce(Energy<T, kLayout>{problem.in_extent(), view<const T, kLayout>(x), energy.mutable_data_ptr<A>(),
                                        is_pointwise, static_cast<A>(eps)});
    });
    if (!is_pointwise) norm = window_sum<Device, A, false>(energy, problem, true, eps);
  });
  return norm;
}

// ---- Responses ----

// The exponent's values as the kernels read them, and B's number where there are none.
template <class A>
Exponent<A> exponent_of(const Tensor& values, const Problem& problem) {
  if (!values.defined()) return {static_cast<A>(problem.b), nullptr, 0};
  return {A(0), values.const_data_ptr<A>(), problem.exponent_per_output ? 1 : 0};
}

inline Tensor exponent_values(const std::optional<Tensor>& exponent, const Problem& problem) {
  if (!exponent) return Tensor();
  return torch::stable::contiguous(torch::stable::to(*exponent, computing_type(problem.type)));
}

// For MaxOut, whose output has fewer channels than lin: a tensor in lin's memory format.
inline Tensor empty_output(const Tensor& lin, const Problem& problem, ScalarType type) {
  if (problem.is_linear) return torch::stable::new_empty(lin, Sizes{problem.columns, problem.out_channels}, type);
  const bool channels_last = lin.stride(1) == 1 && lin.stride(3) == lin.size(1);
  return torch::stable::empty(Sizes{problem.batch, problem.out_channels, problem.rows, problem.columns}, type,
                              std::nullopt, lin.device(), std::nullopt,
                              channels_last ? torch::headeronly::MemoryFormat::ChannelsLast
                                            : torch::headeronly::MemoryFormat::Contiguous);
}

struct Responses {
  Tensor y, norm, winner;
};

// x and y with 4 dimensions, or 2 for a linear layer; norm with 4
template <class Device, class Vendor>
Responses respond(const Vendor& vendor, const Tensor& x, const Tensor& weight, const std::optional<Tensor>& exponent,
                  const Problem& problem, double eps) {
  const bool has_max_out = problem.max_out > 1;
  const Tensor lin = flat(vendor.forward(x, unit_filters<Device>(dense(weight), problem)));
  const Tensor values = exponent_values(exponent, problem);
  const Tensor y = has_max_out ? empty_output(lin, problem, problem.type) : lin;
  const Tensor winner = has_max_out ? empty_output(lin, problem, ScalarType::Byte) : Tensor();
  const Tensor norm = problem.is_scaled() ? patch_norm<Device>(x, problem, eps) : Tensor();
  with_type(problem.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = computing_t<T>;
    with_layout(layout_of({&lin, &y, &winner}), [&](auto layout) {
      constexpr Layout kLayout = decltype(layout)::value;
      with_formula(problem, [&](auto power, auto max_out) {
        Device::apply(Respond<T, kLayout, decltype(power)::value, decltype(max_out)::value>{
            problem.out_extent(), view<const T, kLayout>(lin), view<T, kLayout>(y), view<uint8_t, kLayout>(winner),
            problem.max_out, norm.defined() ? norm.const_data_ptr<A>() : nullptr, exponent_of<A>(values, problem)});
      });
    });
  });
  return {y, norm.defined() ? norm : none_like(x, computing_type(problem.type)),
          winner.defined() ? winner : none_like(x, ScalarType::Byte)};
}

// ---- Backward ----

struct Needs {
  bool x, weight, exponent;
};

struct Gradients {
  Tensor x, weight, exponent;
};

struct Pulled {
  Tensor grad_lin, pull, exponent_terms;
};

// dL/dl, and where wanted r and the terms of the exponent's gradient, in one pass over grad and y
template <class Device>
Pulled pulled(const Tensor& grad_any, const Tensor& y_any, const Tensor& norm_any, const Tensor& winner_any,
              const std::optional<Tensor>& exponent, const Problem& problem, const Needs& needs) {
  if (!problem.is_scaled() && problem.max_out == 1) return {grad_any, Tensor(), Tensor()};
  const Tensor grad = flat(grad_any), values = exponent_values(exponent, problem);
  const Tensor y = problem.is_scaled() ? flat(y_any) : Tensor();
  const Tensor norm = problem.is_scaled() ? torch::stable::contiguous(norm_any) : Tensor();
  const Tensor winner = problem.max_out > 1 ? flat(winner_any) : Tensor();
  const Tensor& like = problem.is_scaled() ? y : winner;  // the layout of the forward pass
  const ScalarType type = computing_type(problem.type);

  Pulled result;
  if (problem.max_out == 1) {
    result.grad_lin = empty_like(like, problem.type);
  } else {
    Problem of_lin = problem;
    of_lin.out_channels *= problem.max_out;
    result.grad_lin = empty_output(like, of_lin, problem.type);
  }
  if (problem.is_scaled() && needs.x && !problem.detach)
    result.pull = torch::stable::new_empty(norm, Sizes{problem.batch, problem.groups, problem.rows, problem.columns}, type);
  if (needs.exponent) result.exponent_terms = empty_like(y, type);
  with_type(problem.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = computing_t<T>;
    with_layout(layout_of({&grad, &y, &result.grad_lin, &winner, &result.exponent_terms}), [&](auto layout) {
      constexpr Layout kLayout = decltype(layout)::value;
      with_formula(problem, [&](auto power, auto max_out) {
        Device::reduce(Pull<T, kLayout, decltype(power)::value, decltype(max_out)::value>{
            problem.out_extent(), view<const T, kLayout>(grad), view<const T, kLayout>(y),
            view<T, kLayout>(result.grad_lin), view<const uint8_t, kLayout>(winner),
            view<A, kLayout>(result.exponent_terms), problem.max_out,
            norm.defined() ? norm.const_data_ptr<A>() : nullptr,
            result.pull.defined() ? result.pull.mutable_data_ptr<A>() : nullptr, problem.detach,
            exponent_of<A>(values, problem)});
      });
    });
  });
  return result;
}

// grad_x -= x boxT(r), in place
template <class Device>
Tensor with_norm_gradient(const Tensor& grad_any, const Tensor& x_any, const Tensor& pull, const Problem& problem) {
  const Tensor grad = flat(grad_any), x = flat(x_any);
  with_type(problem.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = computing_t<T>;
    const Tensor spread =
        problem.is_pointwise() ? pull : window_sum<Device, A, true>(pull, problem, false, 0);
    with_layout(layout_of({&x, &grad}), [&](auto layout) {
      constexpr Layout kLayout = decltype(layout)::value;
      Device::apply(NormGradient<T, kLayout>{problem.in_extent(), view<const T, kLayout>(x), view<T, kLayout>(grad),
                                             spread.const_data_ptr<A>()});
    });
  });
  return grad;
}

inline Tensor exponent_gradient(const Tensor& terms, const Tensor& exponent, const Problem& problem) {
  const Sizes over = !problem.exponent_per_output ? (problem.is_linear ? Sizes{0, 1} : Sizes{0, 1, 2, 3})
                     : problem.is_linear          ? Sizes{0}
                                                  : Sizes{0, 2, 3};
  const torch::headeronly::IntHeaderOnlyArrayRef dims(over.data(), over.size());
  return torch::stable::to(torch::stable::sum(terms, dims), exponent.scalar_type());
}

template <class Device, class Vendor>
Gradients gradients(const Vendor& vendor, const Tensor& grad, const Tensor& x, const Tensor& weight_any,
                    const std::optional<Tensor>& exponent, const Tensor& y, const Tensor& norm, const Tensor& winner,
                    const Problem& problem, const Needs& needs) {
  Gradients result{none_like(x, problem.type), none_like(x, problem.weight_type),
                   none_like(x, exponent ? exponent->scalar_type() : ScalarType::Float)};
  const Pulled at = pulled<Device>(grad, y, norm, winner, exponent, problem, needs);
  if (needs.exponent) result.exponent = exponent_gradient(at.exponent_terms, *exponent, problem);
  if (!needs.x && !needs.weight) return result;
  const Tensor weight = dense(weight_any);
  const auto [grad_x, grad_unit] =
      vendor.backward(at.grad_lin, x, unit_filters<Device>(weight, problem), needs.x, needs.weight);
  if (needs.x) result.x = at.pull.defined() ? with_norm_gradient<Device>(grad_x, x, at.pull, problem) : grad_x;
  if (needs.weight) result.weight = weight_gradient<Device>(weight_any, weight, grad_unit, problem);
  return result;
}

// ---- The operators ----

using Outputs = std::tuple<Tensor, Tensor, Tensor>;

template <class Device>
Outputs conv2d(const Tensor& x, const Tensor& weight, std::optional<Tensor> exponent, double b, Sizes stride,
               Sizes padding, Sizes dilation, int64_t groups, int64_t max_out, bool detach, double eps) {
  const Problem problem =
      checked_conv2d(x, weight, exponent, b, stride, padding, dilation, groups, max_out, detach);
  const typename Device::Guard guard(x);
  const auto compute = [&] {
    if constexpr (Device::kTakesProblems)
      if (Device::takes_forward(problem, x, weight)) return Device::forward(problem, x, weight, exponent, eps);
    return respond<Device>(Convolution{stride, padding, dilation, groups}, x, weight, exponent, problem, eps);
  };
  const Responses at = compute();
  return {at.y, at.norm, at.winner};
}

template <class Device>
Outputs conv2d_backward(const Tensor& grad, const Tensor& x, const Tensor& weight, std::optional<Tensor> exponent,
                        const Tensor& y, const Tensor& norm, const Tensor& winner, double b, Sizes stride,
                        Sizes padding, Sizes dilation, int64_t groups, int64_t max_out, bool detach, bool need_x,
                        bool need_weight, bool need_exponent) {
  const Problem problem =
      checked_conv2d(x, weight, exponent, b, stride, padding, dilation, groups, max_out, detach);
  check_saved(problem, x, grad, y, norm, winner,
              {problem.batch, problem.out_channels, problem.rows, problem.columns},
              {problem.batch, problem.groups, problem.rows, problem.columns});
  const Needs needs{need_x, need_weight, need_exponent && exponent};
  const typename Device::Guard guard(x);
  const auto compute = [&] {
    if constexpr (Device::kTakesProblems)
      if (Device::takes_backward(problem, x, weight))
        return Device::backward(problem, grad, x, weight, exponent, y, norm, winner, needs);
    return gradients<Device>(Convolution{stride, padding, dilation, groups}, grad, x, weight, exponent, y, norm,
                             winner, problem, needs);
  };
  const Gradients at = compute();
  return {at.x, at.weight, at.exponent};
}

inline Sizes with_last(const Tensor& x, int64_t size) {
  Sizes shape = shape_of(x);
  shape.back() = size;
  return shape;
}

template <class Device>
Outputs linear(const Tensor& x, const Tensor& weight, std::optional<Tensor> exponent, double b, int64_t max_out,
               bool detach, double eps) {
  const Problem problem = checked_linear(x, weight, exponent, b, max_out, detach);
  const typename Device::Guard guard(x);
  const Tensor rows = torch::stable::reshape(x, Sizes{problem.columns, problem.in_channels});
  const auto compute = [&] {
    if constexpr (Device::kTakesProblems)
      if (Device::takes_forward(problem, rows, weight)) return Device::forward(problem, rows, weight, exponent, eps);
    return respond<Device>(Product{}, rows, weight, exponent, problem, eps);
  };
  const Responses at = compute();
  const Sizes shape = with_last(x, problem.out_channels);
  return {reshaped(at.y, shape), problem.is_scaled() ? reshaped(at.norm, with_last(x, 1)) : at.norm,
          max_out > 1 ? reshaped(at.winner, shape) : at.winner};
}

template <class Device>
Outputs linear_backward(const Tensor& grad, const Tensor& x, const Tensor& weight, std::optional<Tensor> exponent,
                        const Tensor& y, const Tensor& norm, const Tensor& winner, double b, int64_t max_out,
                        bool detach, bool need_x, bool need_weight, bool need_exponent) {
  const Problem problem = checked_linear(x, weight, exponent, b, max_out, detach);
  check_saved(problem, x, grad, y, norm, winner, with_last(x, problem.out_channels), with_last(x, 1));
  const Needs needs{need_x, need_weight, need_exponent && exponent};
  const typename Device::Guard guard(x);
  const auto rows = [&](const Tensor& t, int64_t channels, bool is_there) {
    return is_there ? torch::stable::reshape(t, Sizes{problem.columns, channels}) : t;
  };
  const Tensor grad_rows = rows(grad, problem.out_channels, true), x_rows = rows(x, problem.in_channels, true);
  const Tensor y_rows = rows(y, problem.out_channels, problem.is_scaled());
  const Tensor winner_rows = rows(winner, problem.out_channels, max_out > 1);
  const auto compute = [&] {
    if constexpr (Device::kTakesProblems)
      if (Device::takes_backward(problem, x_rows, weight))
        return Device::backward(problem, grad_rows, x_rows, weight, exponent, y_rows, norm, winner_rows, needs);
    return gradients<Device>(Product{}, grad_rows, x_rows, weight, exponent, y_rows, norm, winner_rows, problem, needs);
  };
  const Gradients at = compute();
  return {need_x ? reshaped(at.x, shape_of(x)) : at.x, at.weight, at.exponent};
}

}  // namespace bcos
