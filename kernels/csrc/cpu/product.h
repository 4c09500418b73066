// B-cos layers whose matrix product is our own: channels-last, on CPUs with wide vectors.
//
// A vendor's product hands its result over in memory, where the scale must fetch it again, and reads its input without
// summing the squares that the norm is made of. Here a tile of responses is scaled in the registers it was computed in,
// and what is read for the product serves the norm. A task is a part of an image that stays in the second-level cache
// with all that is made of it. docs/maths.md has the formulas, product_loops.h the loops.
#pragma once

#include <cstdint>

#include <torch/headeronly/core/ScalarType.h>

namespace bcos {
namespace cpu {

// A group of a convolution, most often its only one. A linear layer, and a dense 1x1 convolution with stride 1, is one image
// of as many rows of one pixel.
struct Layer {
  int64_t groups;                           // that share a pixel of x and of y
  int64_t batch, height, width, channels;   // of x
  int64_t rows, columns, outputs, max_out;  // of y; max_out is 1 or 2
  int64_t kernel[2], stride[2], padding[2], dilation[2];
  int64_t band;    // output rows in a task
  int64_t images;  // in a task; more than one only where the band is all of an image

  // from one pixel to the next in memory, in elements; and from one image's norms to the next one's
  int64_t x_step() const { return groups * channels; }
  int64_t y_step() const { return groups * outputs; }
  int64_t norm_step() const { return groups * rows * columns; }

  int64_t filters() const { return outputs * max_out; }
  int64_t taps() const { return kernel[0] * kernel[1]; }
  int64_t bands() const { return (rows + band - 1) / band; }
  int64_t tasks() const { return (batch + images - 1) / images * bands(); }
  bool is_single() const { return taps() == 1; }
  bool is_pointwise() const {
    return groups == 1 && is_single() && stride[0] == 1 && stride[1] == 1 && padding[0] == 0 && padding[1] == 0;
  }
};

// Filters of elements W, each multiplied by its factor; strides of filter, channel, row, column.
template <class W>
struct Filters {
  const W* data;
  int64_t stride[4];
  const double* factor;  // null: 1

  Filters group(int64_t g, int64_t filters) const {
    return {data + g * filters * stride[0], {stride[0], stride[1], stride[2], stride[3]}, factor ? factor + g * filters : nullptr};
  }
};

// T: the elements of x and y.
template <class T>
struct Forward {
  Layer layer;
  const T* x;
  const float* panels;        // of pack_forward
  const float* filter_scale;  // of each filter's response, from `arrange`; null: 1
  const float* exponent;      // B of each output; null: B = 2
  float eps;
  float* norm;  // (P, Q) of each image
  T* y;
  uint8_t* winner;  // with max_out 2
};

template <class T>
struct Backward {
  Layer layer;
  const T *grad, *x, *y;
  const uint8_t* winner;
  const float *norm, *exponent;
  bool detached;         // the scale is a constant
  const float* panels;   // of pack_backward; null: only the filters' gradient is wanted
  T* grad_x;
  float* grad_filters;   // gradient_size(), of these tasks; null: not wanted
  double* grad_exponent; // one for each output, to be added to; null: not wanted
};

// The loops for one instruction set and one type. All pointers are to what the group has; ranges are of panels, of tasks or
// of filters.
template <class T>
struct Products {
  int64_t (*forward_panels)(const Layer&);  // how many
  int64_t (*backward_panels)(const Layer&);
  int64_t (*forward_size)(const Layer&);  // of all panels, in floats
  int64_t (*backward_size)(const Layer&);
  int64_t (*gradient_size)(const Layer&);  // of the filters' gradient of a share, in floats
  int64_t (*scale_size)(const Layer&);  // of filter_scale
  void (*arrange)(const Layer&, const double* of_filters, float* filter_scale);
  void (*pack_forward)(const Layer&, const Filters<T>&, float* panels, int64_t begin, int64_t end);
  void (*pack_forward_wide)(const Layer&, const Filters<float>&, float* panels, int64_t begin, int64_t end);
  void (*pack_backward)(const Layer&, const Filters<T>&, float* panels, int64_t begin, int64_t end);
  void (*pack_backward_wide)(const Layer&, const Filters<float>&, float* panels, int64_t begin, int64_t end);
  void (*forward)(const Forward<T>&, int64_t begin, int64_t end);
  void (*backward)(const Backward<T>&, int64_t begin, int64_t end);
  // The sum of `count` gradients of the filters, a `step` apart, in the layout of `stride`.
  void (*unpack)(const Layer&, const float* shares, int64_t count, int64_t step, float* out, const int64_t* stride,
                 int64_t begin, int64_t end);
};

// The best for this CPU, or null where it is better served by the vendor's products.
const Products<float>* float_products();
const Products<torch::headeronly::BFloat16>* bfloat16_products();

}  // namespace cpu
}  // namespace bcos
