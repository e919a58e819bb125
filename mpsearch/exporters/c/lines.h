/* A line of a depthwise convolution for 16 channels: position p multiplies tap t, 16 weights at
   w + 16 * t, with the 16 codes - offset at taps[t] + at + p * step. Ways to the same
   integers: AVX2 and VNNI, NEON and SDOT, and plain C. Sums of channels 0 to 7 go to
   lower[position][channel], those of 8 to 15 to upper. */
#ifndef MPS_LINES_H
#define MPS_LINES_H

#include "rescaling.h"

#define MPS_WIDTH 16   /* channels */
#define MPS_TAPS 64    /* at most; with one more there are weights 0, for an odd number */
#define MPS_STRETCH 32 /* positions whose sums are kept, a multiple of 4 */

/* Three rows of three taps beside each other, one place apart like the positions. */
static inline int mps_three_columns(const int8_t *const *taps, int count, size_t step) {
    if (count != 9 || step != MPS_WIDTH || taps[1] != taps[0] + MPS_WIDTH)
        return 0;
    for (int t = 0; t < 9; t += 3)
        if (taps[t + 2] != taps[t] + 2 * MPS_WIDTH)
            return 0;
    return 1;
}

#if defined(__AVX2__) && !defined(MPS_PORTABLE)
#include "lines_avx2.h"

#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(MPS_PORTABLE)
#include <arm_neon.h>

/* 16 codes - offset to each of `count` places; offset is 128, whose bit is turned, or 0. */
static MPS_APART void mps_copy_places(const unsigned char *codes, size_t step, int offset,
                                      int count, int8_t *to) {
    const uint8x16_t turn = vdupq_n_u8((uint8_t)offset);
    for (; count > 0; count--, codes += step, to += MPS_WIDTH)
        vst1q_s8(to, vreinterpretq_s8_u8(veorq_u8(vld1q_u8(codes), turn)));
}

/* Two products fit 16 bits. */
static void mps_pairs_of_taps(const int8_t *w, const int8_t *const *taps, int count, size_t step,
                              size_t at, int positions, int32_t *lower, int32_t *upper) {
    for (int p = 0; p < positions; p++, at += step) {
        int32x4_t a = vdupq_n_s32(0), b = a, c = a, d = a;
        for (int t = 0; t < count; t += 2) {
            const int8x16_t w0 = vld1q_s8(w + MPS_WIDTH * t), x0 = vld1q_s8(taps[t] + at);
            int16x8_t low = vmull_s8(vget_low_s8(w0), vget_low_s8(x0));
            int16x8_t high = vmull_high_s8(w0, x0);
            if (t + 1 < count) {
                const int8x16_t w1 = vld1q_s8(w + MPS_WIDTH * (t + 1));
                const int8x16_t x1 = vld1q_s8(taps[t + 1] + at);
                low = vmlal_s8(low, vget_low_s8(w1), vget_low_s8(x1));
                high = vmlal_high_s8(high, w1, x1);
            }
            a = vaddw_s16(a, vget_low_s16(low));
            b = vaddw_high_s16(b, low);
            c = vaddw_s16(c, vget_low_s16(high));
            d = vaddw_high_s16(d, high);
        }
        vst1q_s32(lower + 8 * p, a);
        vst1q_s32(lower + 8 * p + 4, b);
        vst1q_s32(upper + 8 * p, c);
        vst1q_s32(upper + 8 * p + 4, d);
    }
}

/* All products fit 16 bits. */
static void mps_short_taps(const int8_t *w, const int8_t *const *taps, int count, size_t step,
                           size_t at, int positions, int32_t *lower, int32_t *upper) {
    for (int p = 0; p < positions; p++, at += step) {
        int16x8_t low = vdupq_n_s16(0), high = low;
        for (int t = 0; t < count; t++) {
            const int8x16_t weights = vld1q_s8(w + MPS_WIDTH * t), x = vld1q_s8(taps[t] + at);
            low = vmlal_s8(low, vget_low_s8(weights), vget_low_s8(x));
            high = vmlal_high_s8(high, weights, x);
        }
        vst1q_s32(lower + 8 * p, vmovl_s16(vget_low_s16(low)));
        vst1q_s32(lower + 8 * p + 4, vmovl_high_s16(low));
        vst1q_s32(upper + 8 * p, vmovl_s16(vget_low_s16(high)));
        vst1q_s32(upper + 8 * p + 4, vmovl_high_s16(high));
    }
}

static void mps_line(int run, const int8_t *w, const int8_t *const *taps, int count, size_t step,
                     size_t at, int positions, int32_t *lower, int32_t *upper) {
    if (run >= count)
        mps_short_taps(w, taps, count, step, at, positions, lower, upper);
    else
        mps_pairs_of_taps(w, taps, count, step, at, positions, lower, upper);
}

/* Sums of the products of 3 x 3 taps, in 16 bits while they fit, + base -> 16 codes of one byte:
   mps_line and mps_finish_rows at once, in registers. `run` is 9 or 2, a constant. */
#define MPS_TAP(n)                                          \
    x = vld1q_s8(t##n + at);                                \
    low = vmlal_s8(low, vget_low_s8(w##n), vget_low_s8(x)); \
    high = vmlal_high_s8(high, w##n, x)
#define MPS_NEW_TAP(n)                                 \
    x = vld1q_s8(t##n + at);                           \
    low = vmull_s8(vget_low_s8(w##n), vget_low_s8(x)); \
    high = vmull_high_s8(w##n, x)
#define MPS_WIDEN                                                    \
    a = vaddw_s16(a, vget_low_s16(low)), b = vaddw_high_s16(b, low); \
    c = vaddw_s16(c, vget_low_s16(high)), d = vaddw_high_s16(d, high)

static inline MPS_INLINE void mps_nine_taps(const mps_layer *layer, const mps_constants *constants,
                                            int run, int clip, const int8_t *w,
                                            const int8_t *const *taps, size_t step, size_t at,
                                            int positions, unsigned char *to, size_t apart) {
    const mps_vectors u = mps_vectors_of(constants), v = mps_vectors_of(constants + 1);
    const int16x8_t zero = vdupq_n_s16((int16_t)layer->output_zero);
    int8x16_t w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16), w2 = vld1q_s8(w + 32);
    int8x16_t w3 = vld1q_s8(w + 48), w4 = vld1q_s8(w + 64), w5 = vld1q_s8(w + 80);
    int8x16_t w6 = vld1q_s8(w + 96), w7 = vld1q_s8(w + 112), w8 = vld1q_s8(w + 128);
    const int32x4_t raise = vdupq_n_s32(layer->raise);
    const int8_t *const t0 = taps[0], *const t1 = taps[1], *const t2 = taps[2], *const t3 = taps[3];
    const int8_t *const t4 = taps[4], *const t5 = taps[5], *const t6 = taps[6], *const t7 = taps[7];
    const int8_t *const t8 = taps[8];
    for (; positions > 0; positions--, at += step, to += apart) {
        int32x4_t a = u.base[0], b = u.base[1], c = v.base[0], d = v.base[1];
        int16x8_t low, high;
        int8x16_t x;
        uint8x16_t codes;
        /* the weights stay: without this compilers keep a second copy of their halves */
        __asm__("" : "+w"(w0), "+w"(w1), "+w"(w2), "+w"(w3), "+w"(w4));
        __asm__("" : "+w"(w5), "+w"(w6), "+w"(w7), "+w"(w8));
        MPS_NEW_TAP(0);
        MPS_TAP(1);
        if (run == 9) {
            MPS_TAP(2);
            MPS_TAP(3);
            MPS_TAP(4);
            MPS_TAP(5);
            MPS_TAP(6);
            MPS_TAP(7);
            MPS_TAP(8);
        } else {
            MPS_WIDEN;
            MPS_NEW_TAP(2);
            MPS_TAP(3);
            MPS_WIDEN;
            MPS_NEW_TAP(4);
            MPS_TAP(5);
            MPS_WIDEN;
            MPS_NEW_TAP(6);
            MPS_TAP(7);
            MPS_WIDEN;
            MPS_NEW_TAP(8);
        }
        MPS_WIDEN;
        if (clip) {
            a = vshlq_s32(a, raise), b = vshlq_s32(b, raise);
            c = vshlq_s32(c, raise), d = vshlq_s32(d, raise);
        }
        low = vqaddq_s16(mps_narrow(&u, a, b), zero);
        high = vqaddq_s16(mps_narrow(&v, c, d), zero);
        codes = vqmovun_high_s16(vqmovun_s16(low), high);
        if (clip)
            codes = vminq_u8(vmaxq_u8(codes, vdupq_n_u8((uint8_t)layer->low)),
                             vdupq_n_u8((uint8_t)layer->high));
        vst1q_u8(to, codes);
    }
}

#ifdef __ARM_FEATURE_DOTPROD
#include "lines_sdot.h"
#else
static inline int mps_columns_to_bytes(const mps_layer *layer, const mps_constants *constants,
                                       const int8_t *w, const int8_t *const *taps, int count,
                                       size_t step, int positions, unsigned char *to,
                                       size_t apart) {
    (void)layer, (void)constants, (void)w, (void)taps, (void)count, (void)step, (void)positions;
    (void)to, (void)apart;
    return 0;
}
#endif

/* 0: this layer needs mps_line and mps_finish_rows. */
static MPS_APART int mps_line_to_bytes(const mps_layer *layer, const mps_constants *constants,
                                       const int8_t *w, const int8_t *const *taps, int count,
                                       size_t step, int positions, unsigned char *to,
                                       size_t apart) {
    const int clip = mps_raised_or_clipped(layer);
    if (!mps_to_bytes(layer))
        return 0;
    if (count != 9)
        return 0;
    if (mps_columns_to_bytes(layer, constants, w, taps, count, step, positions, to, apart))
        return 1;
    if (layer->run >= 9)
        mps_nine_taps(layer, constants, 9, 1, w, taps, step, 0, positions, to, apart);
    else if (clip)
        mps_nine_taps(layer, constants, 2, 1, w, taps, step, 0, positions, to, apart);
    else
        mps_nine_taps(layer, constants, 2, 0, w, taps, step, 0, positions, to, apart);
    return 1;
}

#else

static void mps_copy_places(const unsigned char *codes, size_t step, int offset, int count,
                            int8_t *to) {
    for (; count > 0; count--, codes += step, to += MPS_WIDTH)
        for (int i = 0; i < MPS_WIDTH; i++)
            to[i] = (int8_t)(codes[i] - offset);
}

static void mps_line(int run, const int8_t *w, const int8_t *const *taps, int count, size_t step,
                     size_t at, int positions, int32_t *lower, int32_t *upper) {
    (void)run;
    for (int p = 0; p < positions; p++, at += step, lower += MPS_TILE, upper += MPS_TILE) {
        int32_t all[MPS_WIDTH] = {0};
        for (int t = 0; t < count; t++) {
            const int8_t *weights = w + MPS_WIDTH * t, *codes = taps[t] + at;
            for (int i = 0; i < MPS_WIDTH; i++)
                all[i] += weights[i] * codes[i];
        }
        memcpy(lower, all, MPS_TILE * sizeof *all);
        memcpy(upper, all + MPS_TILE, MPS_TILE * sizeof *all);
    }
}

/* Plain C does not finish sums in registers. */
static inline int mps_line_to_bytes(const mps_layer *layer, const mps_constants *constants,
                                    const int8_t *w, const int8_t *const *taps, int count,
                                    size_t step, int positions, unsigned char *to, size_t apart) {
    (void)layer, (void)constants, (void)w, (void)taps, (void)count, (void)step, (void)positions;
    (void)to, (void)apart;
    return 0;
}

#endif

#endif
