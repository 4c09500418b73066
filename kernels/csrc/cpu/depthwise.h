// Depthwise layers, in float32 and channels-last: a filter for each channel, which sees that channel alone.
//
// There is no product here to hand to a vendor: every element is multiplied as often as a window has elements, and read
// from the cache each time. A task is one image's planes of a vector of neighbouring channels. They are copied once into a
// padded plane of such vectors, so that no loop asks where an image ends; the energy of a window, a sum of squares, is that
// of its columns' energies. Backward makes dL/dl and r of bcos_math.h in such planes, spread by the stride, and dL/dx is
// again a window over them. docs/maths.md has the formulas, depthwise_loops.h the loops.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../bcos_math.h"

namespace bcos {
namespace cpu {

// Of vectors: of x with its padding, and of what backward spreads.
struct Plane {
  int64_t height, width;

  int64_t size() const { return height * width; }
};

struct DepthwiseLayer {
  int64_t batch, channels, height, width, rows, columns;  // of x, of y
  AxisWindow axis[2];
  int64_t lanes;  // channels of a vector; no more than there are

  int64_t blocks() const { return (channels + lanes - 1) / lanes; }
  int64_t tasks() const { return batch * blocks(); }
  // The last block begins where it still is whole: what it shares with the one before is computed twice, to the same bits.
  int64_t first(int64_t block) const { return std::min(block * lanes, channels - lanes); }
  int64_t taps() const { return axis[0].kernel * axis[1].kernel; }
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

struct DepthwiseForward {
  DepthwiseLayer layer;
  const float* x;
  const float* filters;   // (block, tap, lane), aligned
  const float* exponent;  // B of each output; null: B = 2
  float eps;
  float *norm, *y;  // norm (N, C, P, Q)
};

struct DepthwiseBackward {
  DepthwiseLayer layer;
  const float *grad, *x, *y, *norm, *exponent;
  bool detached;          // the scale is a constant
  const float* flipped;   // filters, (block, tap from the last to the first, lane), aligned
  float* grad_x;          // null: not wanted
  float* grad_filters;    // (share, block, tap, lane), aligned, zero at first; null: not wanted
  double* grad_exponent;  // (share, block, lane), zero at first; null: not wanted
};

// The loops for one instruction set; ranges are of tasks.
struct DepthwiseLoops {
  int64_t lanes;
  void (*forward)(const DepthwiseForward&, int64_t begin, int64_t end);
  void (*backward)(const DepthwiseBackward&, int64_t share, int64_t begin, int64_t end);
};

// The best for this CPU, or null where it has no wide vectors.
const DepthwiseLoops* depthwise_loops();

}  // namespace cpu
}  // namespace bcos
