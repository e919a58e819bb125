/* What the output channels of a tile need after their sums, made once for a layer; and the scalar
   way of using it. */
#ifndef MPS_CONSTANTS_H
#define MPS_CONSTANTS_H

#include "kernels.h"

#define MPS_TILE 8 /* output channels */

typedef struct {
    int32_t base[MPS_TILE], multiplier[MPS_TILE], shift[MPS_TILE];
} mps_constants;

static inline mps_scale mps_scale_of(const mps_layer *layer, int channel) {
    mps_scale scale;
    if (layer->scales)
        return mps_factor(layer->scales[channel], layer->factor, layer->exponent);
    scale.multiplier = layer->multipliers[channel];
    scale.shift = layer->shifts[channel];
    return scale;
}

/* Channels first ... first + count - 1, count <= MPS_TILE; the others become 0. Shifts are raised.
 */
static inline mps_constants mps_constants_of(const mps_layer *layer, int first, int count) {
    mps_constants constants;
    for (int i = 0; i < MPS_TILE; i++) {
        mps_scale scale = {0, 33};
        if (i < count)
            scale = mps_scale_of(layer, first + i);
        constants.base[i] = i < count && layer->base ? layer->base[first + i] : 0;
        constants.multiplier[i] = scale.multiplier;
        constants.shift[i] = scale.shift + layer->raise;
    }
    return constants;
}

/* A sum with its base -> the code of an output. */
static inline int32_t mps_finish(const mps_layer *layer, mps_scale scale, int64_t sum) {
    const int64_t scaled = mps_rescale(sum, scale.multiplier, scale.shift, layer->pre_shift);
    return mps_clip(scaled + layer->output_zero, layer->low, layer->high);
}

/* A layer's result and the addend at the same place -> the code of the output. */
static inline int32_t mps_add_up(const mps_sum *sum, int32_t result, int32_t addend) {
    const int64_t total = (int64_t)result * sum->multiplier + (int64_t)addend * sum->other +
                          sum->offset * (INT64_C(1) << sum->raise);
    return mps_clip(mps_shift_round(total, sum->shift) + sum->output_zero, sum->low, sum->high);
}

/* The type of what a layer stores. */
static inline mps_type mps_stored_type(const mps_layer *layer) {
    return layer->sum ? layer->sum->output_type : layer->output_type;
}

/* Store a layer's result as element `at`, with what is added to it there. */
static inline void mps_put(const mps_layer *layer, int32_t result, const void *addend, void *output,
                           size_t at) {
    if (layer->sum)
        result = mps_add_up(layer->sum, result, mps_get(addend, layer->sum->addend_type, at));
    mps_set(output, mps_stored_type(layer), at, result);
}

#endif
