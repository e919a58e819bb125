/* What layers.c and patches.c share. */
#ifndef MPS_PATCHES_H
#define MPS_PATCHES_H

#include "kernels.h"

#define MPS_POSITIONS 16 /* patches that are gathered at once */
#define MPS_STRIDE(terms) (((terms) + 15) / 16 * 16)

static inline mps_scale mps_scale_of(const mps_layer *layer, int channel) {
    mps_scale scale;
    if (layer->scales) return mps_factor(layer->scales[channel], layer->factor, layer->exponent);
    scale.multiplier = layer->multipliers[channel];
    scale.shift = layer->shifts[channel];
    return scale;
}

static inline int32_t mps_finish(const mps_layer *layer, mps_scale scale, int64_t sum) {
    const int64_t scaled = mps_rescale(sum, scale.multiplier, scale.shift, layer->pre_shift);
    return mps_clip(scaled + layer->output_zero, layer->low, layer->high);
}

/* Output channels first ... first + outputs - 1 of `positions` patches, to
   output[at + channel * channel_stride + position * position_stride]. */
void mps_multiply_patches(const mps_layer *layer, int first, int outputs, int terms,
                          const int8_t *patches, int positions, void *output, size_t at,
                          size_t channel_stride, size_t position_stride);
void mps_convolve_patches(const mps_convolution *step, int8_t *patches, const void *input,
                          void *output);
void mps_linear_patches(const mps_linear *step, int8_t *patches, const void *input, void *output);

#endif
