/* A line of a depthwise convolution for 16 channels: position p multiplies tap t, 16 weights at
   w + 16 * t, with the 16 codes - offset at taps[t] + p * step. Three ways to the same integers:
   AVX2, NEON, and plain C. sums[half][position][channel of the half]. */
#ifndef MPS_LINES_H
#define MPS_LINES_H

#include "constants.h"

#define MPS_WIDTH 16   /* channels */
#define MPS_TAPS 64    /* at most; with one more there are weights 0, for an odd number */
#define MPS_STRETCH 16 /* positions at once */

typedef int32_t mps_line_sums[2][MPS_STRETCH][MPS_TILE];

#if defined(__AVX2__) && !defined(MPS_PORTABLE)
#include <immintrin.h>

static inline __m256i mps_wide(const int8_t *x) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)x));
}

/* Two products of 8 bits each are added up in 32 bits: two taps at a time. */
static void mps_line(int run, const int8_t *w, const int8_t *const *taps, int count, size_t step,
                     int positions, mps_line_sums sums) {
    __m256i lower[MPS_TAPS / 2], upper[MPS_TAPS / 2];
    (void)run;
    for (int t = 0; t < count; t += 2) {
        const __m256i a = mps_wide(w + MPS_WIDTH * t), b = mps_wide(w + MPS_WIDTH * (t + 1));
        lower[t / 2] = _mm256_unpacklo_epi16(a, b);
        upper[t / 2] = _mm256_unpackhi_epi16(a, b);
    }
    for (int p = 0; p < positions; p++) {
        const size_t at = (size_t)p * step;
        __m256i a = _mm256_setzero_si256(), b = a;
        for (int t = 0; t < count; t += 2) {
            const __m256i x = mps_wide(taps[t] + at), y = mps_wide(taps[t + 1] + at);
            a = _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_unpacklo_epi16(x, y), lower[t / 2]));
            b = _mm256_add_epi32(b, _mm256_madd_epi16(_mm256_unpackhi_epi16(x, y), upper[t / 2]));
        }
        _mm256_storeu_si256((__m256i *)(void *)sums[0][p], _mm256_permute2x128_si256(a, b, 0x20));
        _mm256_storeu_si256((__m256i *)(void *)sums[1][p], _mm256_permute2x128_si256(a, b, 0x31));
    }
}

#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(MPS_PORTABLE)
#include <arm_neon.h>

/* Two products fit 16 bits. `count` is a constant of one call, for which loops disappear. */
static inline __attribute__((always_inline)) void mps_pairs_of_taps(
    const int8_t *w, const int8_t *const *taps, int count, size_t step, int positions,
    mps_line_sums sums) {
    for (int p = 0; p < positions; p++) {
        const size_t at = (size_t)p * step;
        int32x4_t a = vdupq_n_s32(0), b = a, c = a, d = a;
#pragma GCC unroll 8
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
        vst1q_s32(sums[0][p], a);
        vst1q_s32(sums[0][p] + 4, b);
        vst1q_s32(sums[1][p], c);
        vst1q_s32(sums[1][p] + 4, d);
    }
}

/* All products fit 16 bits. */
static inline __attribute__((always_inline)) void mps_short_taps(
    const int8_t *w, const int8_t *const *taps, int count, size_t step, int positions,
    mps_line_sums sums) {
    for (int p = 0; p < positions; p++) {
        const size_t at = (size_t)p * step;
        int16x8_t low = vdupq_n_s16(0), high = low;
#pragma GCC unroll 16
        for (int t = 0; t < count; t++) {
            const int8x16_t weights = vld1q_s8(w + MPS_WIDTH * t), x = vld1q_s8(taps[t] + at);
            low = vmlal_s8(low, vget_low_s8(weights), vget_low_s8(x));
            high = vmlal_high_s8(high, weights, x);
        }
        vst1q_s32(sums[0][p], vmovl_s16(vget_low_s16(low)));
        vst1q_s32(sums[0][p] + 4, vmovl_high_s16(low));
        vst1q_s32(sums[1][p], vmovl_s16(vget_low_s16(high)));
        vst1q_s32(sums[1][p] + 4, vmovl_high_s16(high));
    }
}

static void mps_line(int run, const int8_t *w, const int8_t *const *taps, int count, size_t step,
                     int positions, mps_line_sums sums) {
    if (count == 9 && run >= 9)
        mps_short_taps(w, taps, 9, step, positions, sums);
    else if (count == 9)
        mps_pairs_of_taps(w, taps, 9, step, positions, sums);
    else if (run >= count)
        mps_short_taps(w, taps, count, step, positions, sums);
    else
        mps_pairs_of_taps(w, taps, count, step, positions, sums);
}

#else

static void mps_line(int run, const int8_t *w, const int8_t *const *taps, int count, size_t step,
                     int positions, mps_line_sums sums) {
    (void)run;
    for (int p = 0; p < positions; p++) {
        for (int channel = 0; channel < MPS_WIDTH; channel++) {
            int32_t sum = 0;
            for (int t = 0; t < count; t++)
                sum += w[MPS_WIDTH * t + channel] * taps[t][(size_t)p * step + (size_t)channel];
            sums[channel / MPS_TILE][p][channel % MPS_TILE] = sum;
        }
    }
}

#endif

#endif
