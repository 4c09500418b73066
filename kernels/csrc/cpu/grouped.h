// Layers of narrow groups, channels-last: as many filters in a group as it has channels, and a power of two of them that
// fits a vector. One of each is a depthwise layer (ConvNeXt's), four to sixteen a ResNeXt's.
//
// A product of matrices that narrow leaves most of a vector empty. Here a vector holds neighbouring channels, of as many
// groups as fit, and a sum runs over the window and over the channels of a group: the filters' elements for one of these
// meet that channel, handed to all lanes of its group. A task is one image's planes of a vector of channels. They are
// copied once into a padded plane of such vectors, so that no loop asks where an image ends; the energy of a window, a sum
// of squares, is that of its columns' energies. Backward makes dL/dl and r of bcos_math.h in such planes, spread by the
// stride, and dL/dx is again a window over them. Sums are in float32 whatever the elements are. docs/maths.md has the
// formulas, grouped_loops.h the loops.
#pragma once

#include <algorithm>
#include <cstdint>

#include <torch/headeronly/core/ScalarType.h>

#include "../bcos_math.h"

namespace bcos {
namespace cpu {

// Of vectors: of x with its padding, and of what backward spreads.
struct Plane {
  int64_t height, width;

  int64_t size() const { return height * width; }
};

struct GroupedLayer {
  int64_t batch, channels, height, width, rows, columns;  // of x, of y
  int64_t group;  // channels of a group, and its filters; divides lanes
  AxisWindow axis[2];
  int64_t lanes;  // channels of a vector; no more than there are

  int64_t groups() const { return channels / group; }
  int64_t blocks() const { return (channels + lanes - 1) / lanes; }
  int64_t tasks() const { return batch * blocks(); }
  // The last block begins where it still is whole: what it shares with the one before is computed twice, to the same bits.
  int64_t first(int64_t block) const { return std::min(block * lanes, channels - lanes); }
  int64_t image_at(int64_t n) const { return n * height * width * channels; }  // in x
  int64_t taps() const { return axis[0].kernel * axis[1].kernel; }
  int64_t vectors() const { return taps() * group; }  // of a block's filters
  static int64_t seen(const AxisWindow& w, int64_t places) { return (places - 1) * w.stride + w.dilation * (w.kernel - 1) + 1; }
  // of x: what the windows see
  Plane padded() const { return {seen(axis[0], rows), seen(axis[1], columns)}; }
  // of y, spread by the stride: what the pixels of x are seen by
  Plane spread() const {
    return {height + axis[0].dilation * (axis[0].kernel - 1), width + axis[1].dilation * (axis[1].kernel - 1)};
  }
  // Where a window of y lies in spread().
  int64_t place(int i, int64_t window) const {
    return window * axis[i].stride + axis[i].dilation * (axis[i].kernel - 1) - axis[i].padding;
  }
};

// T: the elements of x and y.
template <class T>
struct GroupedForward {
  GroupedLayer layer;
  const T* x;
  const float* filters;   // (block, tap, channel of the group, lane: a filter), aligned
  const float* exponent;  // B of each output; null: B = 2
  float eps;
  float* norm;  // (N, G, P, Q)
  T* y;
};

template <class T>
struct GroupedBackward {
  GroupedLayer layer;
  const T *grad, *x, *y;
  const float *norm, *exponent;
  bool detached;          // the scale is a constant
  const float* flipped;   // filters, (block, tap from the last to the first, filter of the group, lane: a channel), aligned
  T* grad_x;              // null: not wanted
  float* grad_filters;    // (share, block, tap, channel of the group, lane: a filter), aligned, zero at first; null: not wanted
  double* grad_exponent;  // (share, block, lane), zero at first; null: not wanted
};

// The loops for one instruction set and one type; ranges are of tasks.
template <class T>
struct GroupedLoops {
  int64_t lanes;
  void (*forward)(const GroupedForward<T>&, int64_t begin, int64_t end);
  void (*backward)(const GroupedBackward<T>&, int64_t share, int64_t begin, int64_t end);
};

// The best for this CPU, or null where it has no wide vectors.
const GroupedLoops<float>* grouped_float_loops();
const GroupedLoops<torch::headeronly::BFloat16>* grouped_bfloat16_loops();

}  // namespace cpu
}  // namespace bcos
