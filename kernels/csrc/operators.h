// The two operators as sequences of steps. A device supplies the drivers:
//   Device::reduce(f)   for functors over (n, g, s) that sum over the channels of a group,
//   Device::apply(f)    for functors over (n, c, s),
//   Device::windows(f)  for functors over (plane, row, column).
#pragma once

#include <tuple>
#include <type_traits>

#include "checks.h"

namespace bcos {

// Whether the two spatial dimensions can be walked as one.
inline bool is_flat(const Tensor& t) {
  return t.size(2) == 1 || t.size(3) == 1 || t.stride(2) == t.size(3) * t.stride(3);
}

inline Tensor flat(const Tensor& t) { return is_flat(t) ? t : torch::stable::contiguous(t); }

// Where to write `result` if not in place: some layouts of empty_like cannot be walked as (N, C, S).
inline Tensor writable(const Tensor& result) {
  return is_flat(result) ? result : torch::stable::new_empty(result, result.sizes());
}

inline Tensor finished(Tensor result, const Tensor& written) {
  if (written.get() != result.get()) torch::stable::copy_(result, written);
  return result;
}

inline int64_t pixel_stride(const Tensor& t) { return t.size(3) == 1 ? t.stride(2) : t.stride(3); }

inline Layout layout_of(std::initializer_list<const Tensor*> tensors) {
  bool channels = true, rows = true;
  for (const Tensor* t : tensors) {  // the stride of a dimension of size 1 is never used
    channels = channels && (t->size(1) == 1 || t->stride(1) == 1);
    rows = rows && (t->size(2) * t->size(3) == 1 || pixel_stride(*t) == 1);
  }
  return channels ? Layout::kChannels : rows ? Layout::kRows : Layout::kStrided;
}

template <class T, Layout layout>
View<T, layout> view(const Tensor& t) {
  using Element = std::remove_const_t<T>;
  T* data;
  if constexpr (std::is_const_v<T>)
    data = t.const_data_ptr<Element>();
  else
    data = t.mutable_data_ptr<Element>();
  return {data, t.stride(0), t.stride(1), pixel_stride(t)};
}

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
    default: return f(Type<torch::headeronly::BFloat16>{});  // checked() let nothing else through
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

template <class F>
void with_square(double b, const F& f) {
  return b == 2 ? f(std::true_type{}) : f(std::false_type{});
}

template <class Device>
Tensor patch_norm(const Tensor& x_any, const Tensor& lin, const Problem& problem, double eps) {
  const Tensor x = flat(x_any);
  const ScalarType type = computing_type(problem.type);
  const Tensor norm = torch::stable::new_empty(lin, problem.norm_shape(), type);
  const bool is_identity = problem.window.is_identity();
  const Tensor energy =
      is_identity ? norm
                  : torch::stable::new_empty(
                        lin, std::vector<int64_t>{problem.batch, problem.groups, problem.height, problem.width}, type);
  with_type(problem.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = computing_t<T>;
    with_layout(layout_of({&x}), [&](auto layout) {
      constexpr Layout kLayout = decltype(layout)::value;
      Device::reduce(Energy<T, kLayout>{problem.in_extent(), view<const T, kLayout>(x), energy.mutable_data_ptr<A>(),
                                        is_identity, static_cast<A>(eps)});
    });
    if (!is_identity)
      Device::windows(BoxNorm<A>{problem.batch * problem.groups, problem.rows, problem.columns, problem.height,
                                 problem.width, problem.window, energy.const_data_ptr<A>(),
                                 norm.mutable_data_ptr<A>(), static_cast<A>(eps)});
  });
  return norm;
}

// a * (|lin|/n)^(b-1), in the layout of lin
template <class Device>
Tensor multiplied(const Tensor& a_any, const Tensor& lin_any, const Tensor& norm, const Problem& problem, double b) {
  const Tensor a = flat(a_any), lin = flat(lin_any);
  const Tensor result = torch::stable::empty_like(lin_any), out = writable(result);
  with_type(problem.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = computing_t<T>;
    with_layout(layout_of({&a, &lin, &out}), [&](auto layout) {
      constexpr Layout kLayout = decltype(layout)::value;
      with_square(b, [&](auto square) {
        constexpr bool kSquare = decltype(square)::value;
        Device::apply(Multiply<T, kLayout, kSquare>{problem.out_extent(), view<const T, kLayout>(a),
                                                    view<const T, kLayout>(lin), view<T, kLayout>(out),
                                                    norm.const_data_ptr<A>(), {static_cast<A>(b - 1)}});
      });
    });
  });
  return finished(result, out);
}

// grad_lin, in the layout of lin; where `pull` is given it becomes r
template <class Device>
Tensor lin_gradient(const Tensor& grad_any, const Tensor& lin_any, const Tensor& norm, const Tensor* pull,
                    const Problem& problem, double b) {
  const Tensor grad = flat(grad_any), lin = flat(lin_any);
  const Tensor result = torch::stable::empty_like(lin_any), out = writable(result);
  with_type(problem.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = computing_t<T>;
    with_layout(layout_of({&grad, &lin, &out}), [&](auto layout) {
      constexpr Layout kLayout = decltype(layout)::value;
      with_square(b, [&](auto square) {
        constexpr bool kSquare = decltype(square)::value;
        Device::reduce(Pull<T, kLayout, kSquare>{problem.out_extent(), view<const T, kLayout>(grad),
                                                 view<const T, kLayout>(lin), view<T, kLayout>(out),
                                                 norm.const_data_ptr<A>(),
                                                 pull ? pull->mutable_data_ptr<A>() : nullptr,
                                                 {static_cast<A>(b - 1)}});
      });
    });
  });
  return finished(result, out);
}

template <class Device>
Tensor input_gradient(const Tensor& x_any, const Tensor& pull, const Problem& problem) {
  const Tensor x = flat(x_any);
  const Tensor result = torch::stable::empty_like(x_any), out = writable(result);
  const bool is_identity = problem.window.is_identity();
  const Tensor spread =
      is_identity ? pull
                  : torch::stable::new_empty(
                        pull, std::vector<int64_t>{problem.batch, problem.groups, problem.height, problem.width});
  with_type(problem.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = computing_t<T>;
    if (!is_identity)
      Device::windows(BoxTranspose<A>{problem.batch * problem.groups, problem.height, problem.width, problem.rows,
                                      problem.columns, problem.window, pull.const_data_ptr<A>(),
                                      spread.mutable_data_ptr<A>()});
    with_layout(layout_of({&x, &out}), [&](auto layout) {
      constexpr Layout kLayout = decltype(layout)::value;
      Device::apply(InputGradient<T, kLayout>{problem.in_extent(), view<const T, kLayout>(x),
                                              view<T, kLayout>(out), spread.const_data_ptr<A>()});
    });
  });
  return finished(result, out);
}

template <class Device>
std::tuple<Tensor, Tensor> scale(const Tensor& lin, const Tensor& x, double b, Pair kernel_size, Pair stride,
                                 Pair padding, Pair dilation, int64_t groups, bool /*detach: backward's business*/,
                                 double eps) {
  const Problem problem = checked(lin, x, b, kernel_size, stride, padding, dilation, groups);
  const typename Device::Guard guard(lin);
  const Tensor norm = patch_norm<Device>(x, lin, problem, eps);
  return {multiplied<Device>(lin, lin, norm, problem, b), norm};
}

// With `detach` the scale is a constant, and the gradient of x is zero by definition: an empty tensor.
template <class Device>
std::tuple<Tensor, Tensor> scale_backward(const Tensor& grad, const Tensor& lin, const Tensor& x,
                                          const Tensor& norm_any, double b, Pair kernel_size, Pair stride,
                                          Pair padding, Pair dilation, int64_t groups, bool detach, bool need_x) {
  const Problem problem = checked(lin, x, b, kernel_size, stride, padding, dilation, groups);
  check_like("grad", grad, lin, problem.type);
  check_shape("grad", grad, {problem.batch, problem.out_channels, problem.rows, problem.columns});
  check_like("norm", norm_any, lin, computing_type(problem.type));
  check_shape("norm", norm_any, problem.norm_shape());
  const typename Device::Guard guard(lin);
  const Tensor norm = torch::stable::contiguous(norm_any);
  if (detach || !need_x) {
    const Tensor none = torch::stable::new_empty(x, std::vector<int64_t>{0});
    return {detach ? multiplied<Device>(grad, lin, norm, problem, b)
                   : lin_gradient<Device>(grad, lin, norm, nullptr, problem, b),
            none};
  }
  const Tensor pull = torch::stable::new_empty(norm, problem.norm_shape());
  const Tensor grad_lin = lin_gradient<Device>(grad, lin, norm, &pull, problem, b);
  return {grad_lin, input_gradient<Device>(x, pull, problem)};
}

}  // namespace bcos
