/* Sums of 4 channels -> codes: + base, * multiplier / 2^shift, + zero point, clip; then what the
   layer adds, if anything. See rescaling.h of the portable kernels for why half up is exact where
   the export says MPS_HALF_UP: here, too, the upper half of a doubled product is taken, and a shift
   that rounds. */
#ifndef MPS_FINISHING_H
#define MPS_FINISHING_H

#include "adding.h"

#define MPS_LANES 4

/* Of every output channel, made once for a layer: 31 - shift with MPS_HALF_UP, shift without. */
typedef struct {
    int32_t *multipliers;
    int8_t *shifts;
} mps_factors;

/* The factors of channels first ... first + count - 1 from the scratch on, filled up with zeros to
   whole vectors; 5 bytes each. */
static inline mps_factors mps_factors_of(const mps_layer *layer, int first, int count,
                                         void *scratch) {
    const int whole = (count + MPS_LANES - 1) / MPS_LANES * MPS_LANES;
    mps_factors f;
    f.multipliers = (int32_t *)scratch;
    f.shifts = (int8_t *)(f.multipliers + whole);
    for (int i = 0; i < whole; i++) {
        mps_scale scale = {0, 33};
        if (i < count)
            scale = mps_scale_of(layer, first + i);
        f.multipliers[i] = scale.multiplier;
        f.shifts[i] = (int8_t)(layer->rounding == MPS_HALF_UP ? 31 - scale.shift - layer->raise
                                                              : scale.shift);
    }
    return f;
}

/* Most layers round half up, to bytes, and add nothing. */
static inline int mps_is_usual(const mps_layer *layer) {
    return layer->rounding == MPS_HALF_UP && layer->raise == 0 && !layer->sum &&
           layer->output_type == MPS_U8;
}

static inline MPS_INLINE int32x4_t mps_clipped(int32x4_t x, int32_t zero, int32_t low,
                                               int32_t high) {
    x = vqaddq_n_s32(x, zero);
    return vminq_s32(vmaxq_s32(x, vdupq_n_s32(low)), vdupq_n_s32(high));
}

/* The lanes of `some` from element `at` of a tensor on. */
static inline MPS_INLINE int32x4_t mps_load_lanes(const void *data, mps_type type, size_t at,
                                                  int count, mve_pred16_t some) {
    int32_t lanes[MPS_LANES] = {0, 0, 0, 0};
    if (type == MPS_U8)
        return vreinterpretq_s32_u32(vldrbq_z_u32((const uint8_t *)data + at, some));
    if (type == MPS_I16)
        return vldrhq_z_s32((const int16_t *)data + at, some);
    for (int i = 0; i < count; i++)
        lanes[i] = mps_get(data, type, at + (size_t)i);
    return vldrwq_s32(lanes);
}

static inline MPS_INLINE void mps_store_lanes(void *data, mps_type type, size_t at, int count,
                                              int32x4_t x, mve_pred16_t some) {
    uint8_t *bytes = (uint8_t *)data;
    int32_t lanes[MPS_LANES];
    if (type == MPS_U8) {
        vstrbq_p_s32((int8_t *)bytes + at, x, some);
    } else if (type == MPS_I16 || type == MPS_U16) {
        vstrhq_p_s32((int16_t *)data + at, x, some);
    } else if (type == MPS_I32) {
        vstrwq_p_s32((int32_t *)data + at, x, some);
    } else if (type == MPS_U4 && count == MPS_LANES && at % 2 == 0) {
        const int32x4_t places =
            vshlq_s32(x, vmulq_n_s32(vreinterpretq_s32_u32(vidupq_n_u32(0, 4)), 1));
        const int32_t both = vaddvq_s32(places);
        bytes[at / 2] = (uint8_t)both, bytes[at / 2 + 1] = (uint8_t)(both >> 8);
    } else if (type == MPS_U2 && count == MPS_LANES && at % 4 == 0) {
        bytes[at / 4] =
            (uint8_t)vaddvq_s32(vshlq_s32(x, vreinterpretq_s32_u32(vidupq_n_u32(0, 2))));
    } else {
        vstrwq_s32(lanes, x);
        for (int i = 0; i < count; i++)
            mps_set(data, type, at + (size_t)i, lanes[i]);
    }
}

/* x * multiplier / 2^shift, half up. */
static inline MPS_INLINE int32x4_t mps_scaled(int32x4_t x, int32x4_t multiplier, int32x4_t shift) {
    return vrshlq_s32(vqdmulhq_s32(x, multiplier), shift);
}

/* The general way, one channel after the other. */
static MPS_APART int32x4_t mps_rescaled_exactly(const mps_layer *layer, int32x4_t x,
                                                int32x4_t multiplier, int32x4_t shift) {
    int32_t sums[MPS_LANES], multipliers[MPS_LANES], shifts[MPS_LANES];
    vstrwq_s32(sums, x), vstrwq_s32(multipliers, multiplier), vstrwq_s32(shifts, shift);
    for (int i = 0; i < MPS_LANES; i++) {
        mps_scale scale;
        scale.multiplier = multipliers[i], scale.shift = shifts[i];
        sums[i] = mps_finish(layer, scale, sums[i]);
    }
    return vldrwq_s32(sums);
}

/* The layer's results for 4 channels; `multiplier` and `shift` are those of the factors. */
static inline MPS_INLINE int32x4_t mps_rescaled(const mps_layer *layer, int32x4_t x,
                                                int32x4_t multiplier, int32x4_t shift) {
    if (layer->rounding != MPS_HALF_UP)
        return mps_rescaled_exactly(layer, x, multiplier, shift);
    x = mps_scaled(vshlq_r_s32(x, layer->raise), multiplier, shift);
    return mps_clipped(x, layer->output_zero, layer->low, layer->high);
}

/* A layer's results at element `at`, `count` of them -> what is stored. */
static MPS_APART void mps_write(const mps_layer *layer, const mps_parts *parts, int32x4_t a,
                                const void *addend, void *output, size_t at, int count) {
    const mve_pred16_t some = vctp32q((uint32_t)count);
    const mps_sum *sum = layer->sum;
    if (!sum) {
        mps_store_lanes(output, layer->output_type, at, count, a, some);
    } else if (parts->vectors) {
        const int32x4_t b = mps_load_lanes(addend, sum->addend_type, at, count, some);
        const int32x4_t x = mps_add_parts(sum, parts, a, b);
        mps_store_lanes(output, sum->output_type, at, count,
                        mps_clipped(x, sum->output_zero, sum->low, sum->high), some);
    } else {
        int32_t lanes[MPS_LANES];
        vstrwq_s32(lanes, a);
        for (int i = 0; i < count; i++) {
            const int32_t b = mps_get(addend, sum->addend_type, at + (size_t)i);
            const int64_t x = (int64_t)lanes[i] * sum->multiplier + (int64_t)b * sum->other +
                              (int64_t)((uint64_t)(int64_t)sum->offset << sum->raise);
            mps_set(
                output, sum->output_type, at + (size_t)i,
                mps_clip(mps_shift_round(x, sum->shift) + sum->output_zero, sum->low, sum->high));
        }
    }
}

#endif
