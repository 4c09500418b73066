// The operators as sequences of steps. A device supplies the drivers:
//   Device::filters(f)  for functors over filters,
//   Device::reduce(f)   for functors over (n, g, s) that sum over the channels of a group,
//   Device::apply(f)    for functors over (n, c, s),
//   Device::windows(f)  for functors over (plane, row, column),
//   Device::add(f)      for functors over elements,
// and says
//   Device::kWholeWindows   whether small windows are summed in one pass, not along one axis after the other,
//   Device::responses(...), gradients(...)  of a layer as a whole, for those the device has products of its own for,
//   Device::widens(type)    whether others are converted to float32 before, and back after,
//   Device::piece(problem)  of how many images (rows of a linear layer) at a time the work is done: what one step writes
//                           is then still in the cache when the next one reads it.
#pragma once

#include <array>
#include <optional>
#include <tuple>
#include <type_traits>

#include "checks.h"

namespace bcos {

// ---- Tensors as (N, C, S) ----
// Four dimensions (N, C, H, W) whose spatial two can be walked as one, or two (S, C): the rows of a linear layer.

inline bool is_flat(const Tensor& t) {
  return t.dim() == 2 || t.size(2) == 1 || t.size(3) == 1 || t.stride(2) == t.size(3) * t.stride(3);
}

// PyTorch's own is asked only where there is something to do: each question costs about a microsecond.
inline Tensor as_contiguous(const Tensor& t) { return t.is_contiguous() ? t : torch::stable::contiguous(t); }

inline Tensor flat(const Tensor& t) { return is_flat(t) ? t : as_contiguous(t); }

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

inline Tensor mm(const Tensor& a, const Tensor& b) {
  std::array<StableIValue, 2> stack{from(a), from(b)};
  call("aten::mm", stack);
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// A fresh tensor's elements in another shape, without being a view of it.
inline Tensor reshaped(const Tensor& t, const Sizes& shape) {
  if (shape_of(t) == shape) return t;
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
  return is_channels_last(weight) ? weight : as_contiguous(weight);
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

// Whether each element of `a` lies where that of `b` does.
inline bool is_beside(const Tensor& a, const Tensor& b) {
  for (int64_t i = 0; i < b.dim(); ++i)
    if (b.size(i) != 1 && a.stride(i) != b.stride(i)) return false;
  return true;
}

inline Tensor beside(const Tensor& t, const Tensor& other) {
  if (is_beside(t, other)) return t;
  Tensor copy = empty_like(other, t.scalar_type());
  torch::stable::copy_(copy, t);
  return copy;
}

// dL/dw in the layout of `original`; dL/du, a fresh tensor, has x's dtype or its computing type
template <class Device>
Tensor weight_gradient(const Tensor& original, const Tensor& unit_gradient_any, const Problem& problem) {
  const Tensor weight = dense(original), unit_gradient = beside(unit_gradient_any, weight);
  const ScalarType type = unit_gradient.scalar_type();
  const int64_t filters = weight.size(0);
  bool in_place = type == problem.weight_type;
  for (int64_t i = 0; i < weight.dim(); ++i) in_place = in_place && unit_gradient.stride(i) == weight.stride(i);
  const Tensor gradient = in_place ? unit_gradient : empty_like(weight, problem.weight_type);
  const auto project = [&](auto weight_tag, auto tag) {
    using W = typename decltype(weight_tag)::type;
    using T = typename decltype(tag)::type;
    Device::filters(Project<W, T>{filters, filters ? weight.numel() / filters : 0, weight.const_data_ptr<W>(),
                                  unit_gradient.const_data_ptr<T>(), gradient.mutable_data_ptr<W>()});
  };
  if (type == computing_type(problem.type))
    with_type(problem.weight_type, [&](auto tag) { project(tag, Type<computing_t<typename decltype(tag)::type>>{}); });
  else
    with_weight_type(problem, project);
  if (original.get() == weight.get()) return gradient;
  Tensor result = empty_like(original, problem.weight_type);
  torch::stable::copy_(result, gradient);
  return result;
}

// ---- Windows ----

// (planes, height, width) -> (planes, rows, columns), or back where transposed.
template <class Device, class A, bool transposed>
void window_sum(const Tensor& source, const Problem& problem, bool root, double eps, const Tensor& result) {
  const int64_t planes = problem.batch * problem.groups;
  const int64_t rows = transposed ? problem.height : problem.rows;
  const int64_t columns = transposed ? problem.width : problem.columns;
  const int64_t source_rows = transposed ? problem.rows : problem.height;
  const int64_t source_columns = transposed ? problem.columns : problem.width;
  if constexpr (Device::kWholeWindows) {
    using Whole = WholeWindowSum<A, transposed>;
    const auto is_short = [](const AxisWindow& w, int64_t size) {  // what position() computes stays in 32 bits
      return size + w.padding + w.kernel * w.dilation + w.stride < Whole::kMostPositions;
    };
    const auto narrow = [](const AxisWindow& w) {
      return AxisWindowOf<int32_t>{static_cast<int32_t>(w.kernel), static_cast<int32_t>(w.stride),
                                   static_cast<int32_t>(w.padding), static_cast<int32_t>(w.dilation)};
    };
    const auto pass = [&](const AxisWindow& down, const AxisWindow& across, int64_t rows_before, const Tensor& before,
                          int64_t columns_after, const Tensor& after, bool is_last) {
      Device::windows(Whole{planes, rows, columns_after, static_cast<int32_t>(rows_before), static_cast<int32_t>(source_columns),
                            narrow(down), narrow(across), before.const_data_ptr<A>(), after.mutable_data_ptr<A>(),
                            root && is_last, static_cast<A>(eps)});
    };
    const AxisWindow vertical = problem.axis(0), horizontal = problem.axis(1), none{1, 1, 0, 1};
    if (is_short(vertical, problem.height) && is_short(horizontal, problem.width)) {
      if (vertical.kernel * horizontal.kernel <= Whole::kMostElements || vertical.is_identity() || horizontal.is_identity())
        return pass(vertical, horizontal, source_rows, source, columns, result, true);
      const Tensor sums = torch::stable::new_empty(source, Sizes{problem.batch, problem.groups, rows, source_columns});
      pass(vertical, none, source_rows, source, source_columns, sums, false);
      return pass(none, horizontal, rows, sums, columns, result, true);
    }
  }
  Tensor sums = source;
  if (!problem.axis(0).is_identity()) {
    const bool is_last = problem.axis(1).is_identity();
    sums = is_last ? result
                   : torch::stable::new_empty(source, Sizes{problem.batch, problem.groups, rows, source_columns});
    Device::windows(WindowSum<A, 0, transposed>{planes, rows, source_columns, source_rows, problem.axis(0),
                                                source.const_data_ptr<A>(), sums.mutable_data_ptr<A>(),
                                                root && is_last, static_cast<A>(eps)});
    if (is_last) return;
  }
  Device::windows(WindowSum<A, 1, transposed>{planes, rows, columns, source_columns, problem.axis(1),
                                              sums.const_data_ptr<A>(), result.mutable_data_ptr<A>(), root,
                                              static_cast<A>(eps)});
}

// (N, G, P, Q) of the computing type, into `norm`
template <class Device>
void patch_norm(const Tensor& x_any, const Problem& problem, double eps, const Tensor& norm) {
  const Tensor x = flat(x_any);
  const bool is_pointwise = problem.is_pointwise();
  const Tensor energy =
      is_pointwise ? norm
                   : torch::stable::new_empty(x, Sizes{problem.batch, problem.groups, problem.height, problem.width},
                                              computing_type(problem.type));
  with_type(problem.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = computing_t<T>;
    with_layout(layout_of({&x}), [&](auto layout) {
      constexpr Layout kLayout = decltype(layout)::value;
      Device::reduce(Energy<T, kLayout>{problem.in_extent(), view<const T, kLayout>(x), energy.mutable_data_ptr<A>(),
                                        is_pointwise, static_cast<A>(eps)});
    });
    if (!is_pointwise) window_sum<Device, A, false>(energy, problem, true, eps, norm);
  });
}

// ---- Pieces: some of the images, or of the rows of a linear layer ----

struct Range {
  int64_t first, count;

  // of a tensor with the images or the rows first
  Tensor of(const Tensor& t) const {
    if (!t.defined() || (first == 0 && count == t.size(0))) return t;
    Tensor whole = t;
    return torch::stable::narrow(whole, 0, first, count);
  }
};

// f(range, the problem of that piece)
template <class Device, class F>
void for_pieces(const Problem& problem, const F& f) {
  const int64_t length = problem.length(), most = std::max<int64_t>(1, Device::piece(problem));
  const int64_t pieces = std::max<int64_t>(1, (length + most - 1) / most);
  for (int64_t i = 0; i < pieces; ++i) {  // of nearly one size: a small remainder might be computed in another way
    const int64_t first = length * i / pieces, count = length * (i + 1) / pieces - first;
    f(Range{first, count}, problem.piece(count));
  }
}

// ---- Responses ----

// B for each output, as the kernels read it; nothing where they have no use for it.
inline Tensor exponent_values(const std::optional<Tensor>& exponent, const Problem& problem, const Tensor& x) {
  const ScalarType type = computing_type(problem.type);
  if (!exponent) {
    if (!problem.is_scaled() || problem.b == 2) return Tensor();
    Tensor values = torch::stable::new_empty(x, Sizes{problem.out_channels}, type);
    return torch::stable::fill_(values, problem.b);
  }
  Tensor values = *exponent;
  if (values.dim() == 0) {
    std::array<StableIValue, 3> stack{from(values), from(Sizes{problem.out_channels}), from(false)};
    call("aten::expand", stack);
    values = torch::stable::detail::to<Tensor>(stack[0]);
  }
  return as_contiguous(values.scalar_type() == type ? values : torch::stable::to(values, type));
}

template <class A>
const A* values_or_null(const Tensor& t) {
  return t.defined() ? t.const_data_ptr<A>() : nullptr;
}

// (N, channels, ...) in the memory format of `like`, which may have another number of channels.
inline Tensor empty_in_format(const Tensor& like, const Sizes& shape, ScalarType type) {
  if (like.dim() == 2) return torch::stable::new_empty(like, shape, type);
  const bool channels_last = like.stride(1) == 1 && like.stride(3) == like.size(1);
  return torch::stable::empty(shape, type, std::nullopt, like.device(), std::nullopt,
                              channels_last ? torch::headeronly::MemoryFormat::ChannelsLast
                                            : torch::headeronly::MemoryFormat::Contiguous);
}

struct Responses {
  Tensor y, norm, winner;  // undefined: there is none
};

// x, y and norm with 4 dimensions, or 2 for a linear layer
template <class Device, class Vendor>
Responses respond(const Vendor& vendor, const Tensor& x, const Tensor& weight, const std::optional<Tensor>& exponent,
                  const Problem& problem, double eps) {
  const bool has_max_out = problem.max_out > 1, in_one = Device::piece(problem) >= problem.length();
  const Tensor unit = unit_filters<Device>(dense(weight), problem), values = exponent_values(exponent, problem, x);
  Responses all;
  if (problem.is_scaled()) all.norm = torch::stable::new_empty(x, problem.norm_shape(), computing_type(problem.type));
  for_pieces<Device>(problem, [&](const Range& range, const Problem& piece) {
    const Tensor x_piece = range.of(x), lin = flat(vendor.forward(x_piece, unit));
    if (!all.y.defined()) {
      all.y = in_one && !has_max_out ? lin : empty_in_format(lin, problem.y_shape(), problem.type);
      if (has_max_out) all.winner = empty_in_format(lin, problem.y_shape(), ScalarType::Byte);
    }
    const Tensor y = range.of(all.y), winner = has_max_out ? range.of(all.winner) : Tensor();
    Tensor norm;
    if (problem.is_scaled()) {
      norm = range.of(all.norm);
      patch_norm<Device>(x_piece, piece, eps, norm);
    } else if (!has_max_out && !in_one) {
      Tensor target = y;
      torch::stable::copy_(target, lin);
    }
    with_type(problem.type, [&](auto tag) {
      using T = typename decltype(tag)::type;
      using A = computing_t<T>;
      with_layout(layout_of({&lin, &y, &winner}), [&](auto layout) {
        constexpr Layout kLayout = decltype(layout)::value;
        with_formula(problem, [&](auto power, auto max_out) {
          Device::apply(Respond<T, kLayout, decltype(power)::value, decltype(max_out)::value>{
              piece.out_extent(), view<const T, kLayout>(lin), view<T, kLayout>(y), view<uint8_t, kLayout>(winner),
              problem.max_out, values_or_null<A>(norm), values_or_null<A>(values)});
        });
      });
    });
  });
  return all;
}

// ---- Backward ----

struct Needs {
  bool x, weight, exponent;
};

struct Gradients {
  Tensor x, unit, exponent;  // of x, of the filters at norm one, of B; undefined: not wanted
};

struct Pulled {
  Tensor grad_lin, pull, exponent_terms;
};

// dL/dl, and where wanted r and the terms of the exponent's gradient, in one pass over grad and y
template <class Device>
Pulled pulled(const Tensor& grad_any, const Tensor& y_any, const Tensor& norm_any, const Tensor& winner_any,
              const Tensor& values, const Problem& problem, const Needs& needs) {
  if (!problem.is_scaled() && problem.max_out == 1) return {grad_any, Tensor(), Tensor()};
  Tensor grad = flat(grad_any);
  const Tensor y = problem.is_scaled() ? flat(y_any) : Tensor();
  if (problem.is_scaled() && layout_of({&grad, &y}) == Layout::kStrided && layout_of({&y}) != Layout::kStrided) {
    Tensor beside_y = empty_like(y, problem.type);  // one pass more, where each element would cost a line of memory
    torch::stable::copy_(beside_y, grad);
    grad = beside_y;
  }
  const Tensor norm = problem.is_scaled() ? as_contiguous(norm_any) : Tensor();
  const Tensor winner = problem.max_out > 1 ? flat(winner_any) : Tensor();
  const Tensor& like = problem.is_scaled() ? y : winner;  // the layout of the forward pass
  const ScalarType type = computing_type(problem.type);

  Pulled result;
  if (problem.max_out == 1) {
    result.grad_lin = empty_like(like, problem.type);
  } else {
    Problem of_lin = problem;
    of_lin.out_channels *= problem.max_out;
    result.grad_lin = empty_in_format(like, of_lin.y_shape(), problem.type);
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
        const auto reduce = [&](auto terms) {
          Device::reduce(Pull<T, kLayout, decltype(power)::value, decltype(max_out)::value, decltype(terms)::value>{
              problem.out_extent(), view<const T, kLayout>(grad), view<const T, kLayout>(y),
              view<T, kLayout>(result.grad_lin), view<const uint8_t, kLayout>(winner),
              view<A, kLayout>(result.exponent_terms), problem.max_out, values_or_null<A>(norm),
              result.pull.defined() ? result.pull.mutable_data_ptr<A>() : nullptr, problem.detach ? A(0) : A(1),
              values_or_null<A>(values)});
        };
        if constexpr (decltype(power)::value == Power::kPower)
          if (needs.exponent) return reduce(std::true_type{});
        reduce(std::false_type{});
      });
    });
  });
  return result;
}

// out = linear_part - x boxT(r); `out` may be the linear part itself
template <class Device>
void subtract_norm_gradient(const Tensor& linear_any, const Tensor& x_any, const Tensor& pull, const Problem& problem,
                            const Tensor& out) {
  const Tensor linear_part = flat(linear_any), x = flat(x_any);
  with_type(problem.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = computing_t<T>;
    Tensor spread = pull;
    if (!problem.is_pointwise()) {
      spread = torch::stable::new_empty(pull, Sizes{problem.batch, problem.groups, problem.height, problem.width});
      window_sum<Device, A, true>(pull, problem, false, 0, spread);
    }
    with_layout(layout_of({&x, &linear_part, &out}), [&](auto layout) {
      constexpr Layout kLayout = decltype(layout)::value;
      Device::apply(NormGradient<T, kLayout>{problem.in_extent(), view<const T, kLayout>(x),
                                             view<const T, kLayout>(linear_part), view<T, kLayout>(out),
                                             spread.const_data_ptr<A>()});
    });
  });
}

inline Tensor exponent_gradient(const Tensor& terms, const Problem& problem) {
  const Sizes over = !problem.exponent_per_output ? (problem.is_linear ? Sizes{0, 1} : Sizes{0, 1, 2, 3})
                     : problem.is_linear          ? Sizes{0}
                                                  : Sizes{0, 2, 3};
  const torch::headeronly::IntHeaderOnlyArrayRef dims(over.data(), over.size());
  return torch::stable::sum(terms, dims);
}

inline bool is_half(ScalarType type) { return type == ScalarType::Half || type == ScalarType::BFloat16; }

inline Tensor to_float(const Tensor& t) {
  return is_half(t.scalar_type()) ? torch::stable::to(t, ScalarType::Float) : t;
}

// sum += term, or = term where there is no sum yet
template <class Device>
void accumulate(Tensor& sum, const Tensor& term, const Problem& problem) {
  if (!sum.defined()) {
    sum = term;
    return;
  }
  const Tensor same = beside(term, sum);
  with_type(problem.type, [&](auto tag) {
    using A = computing_t<typename decltype(tag)::type>;
    if (sum.scalar_type() != computing_type(problem.type)) return;  // pieces are for computing types alone
    Device::add(Add<A>{sum.numel(), same.const_data_ptr<A>(), sum.mutable_data_ptr<A>()});
  });
}

template <class Device, class Vendor>
Gradients gradients(const Vendor& vendor, const Tensor& grad, const Tensor& x, const Tensor& weight,
                    const std::optional<Tensor>& exponent, const Tensor& y, const Tensor& norm, const Tensor& winner,
                    const Problem& problem, const Needs& needs) {
  const bool in_one = Device::piece(problem) >= problem.length();
  const Tensor values = exponent_values(exponent, problem, x);
  const Tensor unit = needs.x || needs.weight ? unit_filters<Device>(dense(weight), problem) : Tensor();
  const auto there = [&](const Tensor& t, bool is_there) { return is_there ? t : Tensor(); };
  const Tensor y_there = there(y, problem.is_scaled()), norm_there = there(norm, problem.is_scaled());
  const Tensor winner_there = there(winner, problem.max_out > 1);
  Gradients all;
  for_pieces<Device>(problem, [&](const Range& range, const Problem& piece) {
    const Pulled at = pulled<Device>(range.of(grad), range.of(y_there), range.of(norm_there),
                                     range.of(winner_there), values, piece, needs);
    if (needs.exponent) accumulate<Device>(all.exponent, exponent_gradient(at.exponent_terms, piece), problem);
    if (!needs.x && !needs.weight) return;
    const Tensor x_piece = range.of(x);
    const auto [linear_part, unit_part] = vendor.backward(at.grad_lin, x_piece, unit, needs.x, needs.weight);
    if (needs.weight) accumulate<Device>(all.unit, unit_part, problem);
    if (!needs.x) return;
    if (!all.x.defined())
      all.x = in_one ? flat(linear_part) : empty_in_format(linear_part, problem.x_shape(), problem.type);
    Tensor out = range.of(all.x);
    if (at.pull.defined())
      subtract_norm_gradient<Device>(linear_part, x_piece, at.pull, piece, out);
    else if (!in_one)
      torch::stable::copy_(out, linear_part);
  });
  if (needs.exponent) all.exponent = torch::stable::to(all.exponent, exponent->scalar_type());
  return all;
}

// ---- The operators ----

using Outputs = std::tuple<Tensor, Tensor, Tensor>;


// Filters given in float32 beside bfloat16 are rounded to it, as a product in bfloat16 would have them; those beside
// float16 are not, whose range is too short for filters of any length.
inline Tensor wide_filters(const Tensor& weight, const Problem& problem) {
  const bool rounds = problem.type == ScalarType::BFloat16 && problem.weight_type == ScalarType::Float;
  return to_float(rounds ? torch::stable::to(weight, problem.type) : weight);
}

inline Outputs narrowed_responses(const Outputs& wide, const Problem& problem) {
  return {torch::stable::to(std::get<0>(wide), problem.type), std::get<1>(wide), std::get<2>(wide)};
}

inline Outputs narrowed_gradients(const Outputs& wide, const Problem& problem) {
  return {torch::stable::to(std::get<0>(wide), problem.type), torch::stable::to(std::get<1>(wide), problem.weight_type),
          std::get<2>(wide)};
}

// What there is not has the shape (0,).
inline Tensor or_none(const Tensor& t, const Tensor& x, ScalarType type) {
  return t.defined() ? t : torch::stable::new_empty(x, Sizes{0}, type);
}

inline Outputs outputs(const Responses& at, const Tensor& x, const Problem& problem) {
  return {at.y, or_none(at.norm, x, computing_type(problem.type)), or_none(at.winner, x, ScalarType::Byte)};
}

template <class Device>
Outputs outputs(const Gradients& at, const Tensor& x, const Tensor& weight, const std::optional<Tensor>& exponent,
                const Problem& problem) {
  return {or_none(at.x, x, problem.type),
          at.unit.defined() ? weight_gradient<Device>(weight, at.unit, problem) : or_none(at.unit, x, problem.weight_type),
          or_none(at.exponent, x, exponent ? exponent->scalar_type() : ScalarType::Float)};
}

template <class Device>
Outputs conv2d(const Tensor& x, const Tensor& weight, std::optional<Tensor> exponent, double b, Sizes stride,
               Sizes padding, Sizes dilation, int64_t groups, int64_t max_out, bool detach, double eps) {
  const Problem problem =
      checked_conv2d(x, weight, exponent, b, stride, padding, dilation, groups, max_out, detach);
  const typename Device::Guard guard(x);
  if (const auto fused = Device::responses(problem, x, weight, exponent, eps)) return outputs(*fused, x, problem);
  if (Device::widens(problem.type))
    return narrowed_responses(conv2d<Device>(to_float(x), wide_filters(weight, problem), exponent, b, stride, padding, dilation,
                                             groups, max_out, detach, eps),
                              problem);
  return outputs(respond<Device>(Convolution{stride, padding, dilation, groups}, x, weight, exponent, problem, eps), x, problem);
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
  if (const auto fused = Device::gradients(problem, grad, x, weight, exponent, y, norm, winner, needs))
    return outputs<Device>(*fused, x, weight, exponent, problem);
  if (Device::widens(problem.type))
    return narrowed_gradients(
        conv2d_backward<Device>(to_float(grad), to_float(x), wide_filters(weight, problem), exponent, to_float(y), norm, winner, b,
                                stride, padding, dilation, groups, max_out, detach, need_x, need_weight, need_exponent),
        problem);
  const Gradients at = gradients<Device>(Convolution{stride, padding, dilation, groups}, grad, x, weight, exponent, y, norm,
                                         winner, problem, needs);
  return outputs<Device>(at, x, weight, exponent, problem);
}

// All dimensions but the last as one.
inline Tensor as_rows(const Tensor& t, int64_t rows, int64_t channels) {
  return as_contiguous(t.dim() == 2 ? t : torch::stable::reshape(t, Sizes{rows, channels}));
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
  const Tensor rows = as_rows(x, problem.columns, problem.in_channels);
  std::optional<Responses> at = Device::responses(problem, rows, weight, exponent, eps);
  if (!at) {
    if (Device::widens(problem.type))
      return narrowed_responses(linear<Device>(to_float(x), wide_filters(weight, problem), exponent, b, max_out, detach, eps), problem);
    at = respond<Device>(Product{}, rows, weight, exponent, problem, eps);
  }
  const auto shaped = [&](const Tensor& t, int64_t channels) { return t.defined() ? reshaped(t, with_last(x, channels)) : t; };
  return outputs({shaped(at->y, problem.out_channels), shaped(at->norm, 1), shaped(at->winner, problem.out_channels)}, x, problem);
}

template <class Device>
Outputs linear_backward(const Tensor& grad, const Tensor& x, const Tensor& weight, std::optional<Tensor> exponent,
                        const Tensor& y, const Tensor& norm, const Tensor& winner, double b, int64_t max_out,
                        bool detach, bool need_x, bool need_weight, bool need_exponent) {
  const Problem problem = checked_linear(x, weight, exponent, b, max_out, detach);
  check_saved(problem, x, grad, y, norm, winner, with_last(x, problem.out_channels), with_last(x, 1));
  const Needs needs{need_x, need_weight, need_exponent && exponent};
  const typename Device::Guard guard(x);
  const auto rows = [&](const Tensor& t, int64_t channels) { return as_rows(t, problem.columns, channels); };
  const Tensor grad_rows = rows(grad, problem.out_channels), x_rows = rows(x, problem.in_channels);
  const Tensor y_rows = problem.is_scaled() ? rows(y, problem.out_channels) : y;
  const Tensor norms = problem.is_scaled() ? rows(norm, 1) : norm;
  const Tensor winner_rows = max_out > 1 ? rows(winner, problem.out_channels) : winner;
  const auto shaped = [&](Gradients at) {
    if (needs.x) at.x = reshaped(at.x, shape_of(x));
    return outputs<Device>(at, x, weight, exponent, problem);
  };
  if (const auto fused = Device::gradients(problem, grad_rows, x_rows, weight, exponent, y_rows, norms, winner_rows, needs))
    return shaped(*fused);
  if (Device::widens(problem.type))
    return narrowed_gradients(
        linear_backward<Device>(to_float(grad), to_float(x), wide_filters(weight, problem), exponent, to_float(y), norm, winner, b,
                                max_out, detach, need_x, need_weight, need_exponent),
        problem);
  return shaped(gradients<Device>(Product{}, grad_rows, x_rows, weight, exponent, y_rows, norms, winner_rows, problem, needs));
}

}  // namespace bcos
