/* Sums of products for a tile of 8 output channels and 4 positions. Three ways to the same integers,
   chosen when compiling: AVX2, NEON, and plain C where neither is there (or with -DMPS_PORTABLE).

   Weights lie in groups of 4 terms: 4 weights of the first channel, 4 of the second, ... A patch is
   the row of codes - offset that one position multiplies with. No 32-bit sum overflows, as the
   export has proven; what fits 16 bits is said below. mps_products sets sums[position][channel], or
   adds to them. */
#ifndef MPS_PRODUCTS_H
#define MPS_PRODUCTS_H

#include "constants.h"

#define MPS_GROUP 4 /* terms */
#define MPS_TILE_POSITIONS 4

#if defined(__AVX2__) && !defined(MPS_PORTABLE)
#include <immintrin.h>

/* Codes below 128 stay bytes where two products and more fit 16 bits; others become 16 bits. */
static inline int mps_code_bytes(const mps_layer *layer) {
    return layer->run >= 2 && layer->offset == 0 ? 1 : 2;
}

/* Codes - offset as a part of a patch; what is behind it may be overwritten up to `room` codes. */
static inline void mps_centre(const mps_layer *layer, const unsigned char *codes, int count,
                              void *patch) {
    int16_t *wide = patch;
    const int16_t offset = (int16_t)layer->offset;
    int i = 0;
    if (mps_code_bytes(layer) == 1) {
        memcpy(patch, codes, (size_t)count);
        return;
    }
    for (; i + 8 <= count; i += 8) {
        const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(codes + i));
        _mm_storeu_si128((__m128i *)(void *)(wide + i),
                         _mm_sub_epi16(_mm_cvtepu8_epi16(bytes), _mm_set1_epi16(offset)));
    }
    if (i < count && count >= 8) {
        const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(codes + count - 8));
        _mm_storeu_si128((__m128i *)(void *)(wide + count - 8),
                         _mm_sub_epi16(_mm_cvtepu8_epi16(bytes), _mm_set1_epi16(offset)));
        return;
    }
    for (; i < count; i++) wide[i] = (int16_t)(codes[i] - offset);
}

/* a channel's two sums beside each other -> one */
static inline void mps_store(int32_t *sums, __m256i total, int more) {
    __m256i *to = (__m256i *)(void *)sums;
    if (more) total = _mm256_add_epi32(total, _mm256_loadu_si256(to));
    _mm256_storeu_si256(to, total);
}

static inline __m256i mps_pairs(__m256i a, __m256i b) {
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(a, b), 0xd8);
}

static inline __m256i mps_four(const unsigned char *patch) {
    int32_t codes;
    memcpy(&codes, patch, 4);
    return _mm256_set1_epi32(codes);
}

static inline __m256i mps_four_wide(const unsigned char *patch) {
    int64_t codes;
    memcpy(&codes, patch, 8);
    return _mm256_set1_epi64x(codes);
}

/* `run` / 2 sums of two products are added up in 16 bits before they are widened. */
static void mps_byte_products(int run, const int8_t *w, const unsigned char *x, size_t stride,
                              int groups, int32_t *sums, int more) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    const unsigned char *y = x + 2 * stride;
    while (groups > 0) {
        int count = groups < run / 2 ? groups : run / 2;
        __m256i e = _mm256_setzero_si256(), f = e, g = e, h = e;
        groups -= count;
        for (; count > 0; count--, w += 32, x += 4, y += 4) {
            const __m256i weights = _mm256_loadu_si256((const __m256i *)(const void *)w);
            e = _mm256_add_epi16(e, _mm256_maddubs_epi16(mps_four(x), weights));
            f = _mm256_add_epi16(f, _mm256_maddubs_epi16(mps_four(x + stride), weights));
            g = _mm256_add_epi16(g, _mm256_maddubs_epi16(mps_four(y), weights));
            h = _mm256_add_epi16(h, _mm256_maddubs_epi16(mps_four(y + stride), weights));
        }
        a = _mm256_add_epi32(a, _mm256_madd_epi16(e, ones));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(f, ones));
        c = _mm256_add_epi32(c, _mm256_madd_epi16(g, ones));
        d = _mm256_add_epi32(d, _mm256_madd_epi16(h, ones));
    }
    mps_store(sums, a, more);
    mps_store(sums + 8, b, more);
    mps_store(sums + 16, c, more);
    mps_store(sums + 24, d, more);
}

static void mps_products(const mps_layer *layer, const int8_t *w, const void *patches, size_t stride,
                         int groups, int32_t *sums, int more) {
    const unsigned char *x = patches, *y = x + 2 * stride;
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a, e = a, f = a, g = a, h = a;
    if (mps_code_bytes(layer) == 1) {
        mps_byte_products(layer->run, w, x, stride, groups, sums, more);
        return;
    }
    for (; groups > 0; groups--, w += 32, x += 8, y += 8) {
        const __m256i lower =
            _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)w));
        const __m256i upper =
            _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(w + 16)));
        __m256i codes = mps_four_wide(x);
        a = _mm256_add_epi32(a, _mm256_madd_epi16(lower, codes));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(upper, codes));
        codes = mps_four_wide(x + stride);
        c = _mm256_add_epi32(c, _mm256_madd_epi16(lower, codes));
        d = _mm256_add_epi32(d, _mm256_madd_epi16(upper, codes));
        codes = mps_four_wide(y);
        e = _mm256_add_epi32(e, _mm256_madd_epi16(lower, codes));
        f = _mm256_add_epi32(f, _mm256_madd_epi16(upper, codes));
        codes = mps_four_wide(y + stride);
        g = _mm256_add_epi32(g, _mm256_madd_epi16(lower, codes));
        h = _mm256_add_epi32(h, _mm256_madd_epi16(upper, codes));
    }
    mps_store(sums, mps_pairs(a, b), more);
    mps_store(sums + 8, mps_pairs(c, d), more);
    mps_store(sums + 16, mps_pairs(e, f), more);
    mps_store(sums + 24, mps_pairs(g, h), more);
}

#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(MPS_PORTABLE)
#include <arm_neon.h>

static inline int mps_code_bytes(const mps_layer *layer) {
    (void)layer;
    return 1;
}

/* Codes - offset as a part of a patch: with offset 128, the highest bit turned. */
static inline void mps_centre(const mps_layer *layer, const unsigned char *codes, int count,
                              void *patch) {
    const uint8x16_t turn = vdupq_n_u8((uint8_t)layer->offset);
    unsigned char *to = patch;
    int i = 0;
    for (; i + 16 <= count; i += 16) vst1q_u8(to + i, veorq_u8(vld1q_u8(codes + i), turn));
    if (i == count) return;
    if (i + 8 <= count) {
        vst1_u8(to + i, veor_u8(vld1_u8(codes + i), vget_low_u8(turn)));
        i += 8;
    }
    if (i < count && count >= 8) {
        i = count - 8;
        vst1_u8(to + i, veor_u8(vld1_u8(codes + i), vget_low_u8(turn)));
        return;
    }
    for (; i < count; i++) to[i] = (unsigned char)(codes[i] ^ layer->offset);
}

/* Lanes are (channel, term of the group): two channels in each half of a vector of weights. */
static inline int8x16_t mps_four(const int8_t *patch) {
    int32_t codes;
    memcpy(&codes, patch, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(codes));
}

static inline void mps_store(int32_t *sums, int32x4_t lower, int32x4_t upper, int more) {
    int32x4_t total = vpaddq_s32(lower, upper);
    if (more) total = vaddq_s32(total, vld1q_s32(sums));
    vst1q_s32(sums, total);
}

/* 16 bits hold the sums of all terms of a lane: at most `run` groups. */
#define MPS_ADD(at, low0, high0, low1, high1)                                       \
    codes = mps_four(at), at += MPS_GROUP;                                          \
    low0 = vmlal_s8(low0, vget_low_s8(first), vget_low_s8(codes));                  \
    high0 = vmlal_high_s8(high0, first, codes);                                     \
    low1 = vmlal_s8(low1, vget_low_s8(second), vget_low_s8(codes));                 \
    high1 = vmlal_high_s8(high1, second, codes)

static void mps_short_products(const int8_t *w, const int8_t *x, size_t stride, int groups,
                               int32_t *sums, int more) {
    const int8_t *x1 = x + stride, *x2 = x1 + stride, *x3 = x2 + stride;
    int16x8_t a = vdupq_n_s16(0), b = a, c = a, d = a, e = a, f = a, g = a, h = a;
    int16x8_t i = a, j = a, k = a, l = a, m = a, n = a, o = a, p = a;
    for (; groups > 0; groups--, w += 32) {
        const int8x16_t first = vld1q_s8(w), second = vld1q_s8(w + 16);
        int8x16_t codes;
        MPS_ADD(x, a, b, c, d);
        MPS_ADD(x1, e, f, g, h);
        MPS_ADD(x2, i, j, k, l);
        MPS_ADD(x3, m, n, o, p);
    }
    mps_store(sums, vpaddlq_s16(a), vpaddlq_s16(b), more);
    mps_store(sums + 4, vpaddlq_s16(c), vpaddlq_s16(d), more);
    mps_store(sums + 8, vpaddlq_s16(e), vpaddlq_s16(f), more);
    mps_store(sums + 12, vpaddlq_s16(g), vpaddlq_s16(h), more);
    mps_store(sums + 16, vpaddlq_s16(i), vpaddlq_s16(j), more);
    mps_store(sums + 20, vpaddlq_s16(k), vpaddlq_s16(l), more);
    mps_store(sums + 24, vpaddlq_s16(m), vpaddlq_s16(n), more);
    mps_store(sums + 28, vpaddlq_s16(o), vpaddlq_s16(p), more);
}

/* Two products fit 16 bits: |code - 128| <= 128 and |w| <= 127; two groups at a time. */
#define MPS_TWO(low, w0, w1) \
    vpadalq_s16(low, vmlal_s8(vmull_s8(vget_low_s8(w0), vget_low_s8(codes)), vget_low_s8(w1), \
                              vget_low_s8(more_codes)))
#define MPS_TWO_HIGH(high, w0, w1) \
    vpadalq_s16(high, vmlal_high_s8(vmull_high_s8(w0, codes), w1, more_codes))
#define MPS_ADD_TWO(at, low0, high0, low1, high1)                \
    codes = mps_four(at), at += MPS_GROUP;                       \
    more_codes = mps_four(at), at += MPS_GROUP;                  \
    low0 = MPS_TWO(low0, first, third);                          \
    high0 = MPS_TWO_HIGH(high0, first, third);                   \
    low1 = MPS_TWO(low1, second, fourth);                        \
    high1 = MPS_TWO_HIGH(high1, second, fourth)
#define MPS_ADD_ONE(at, low0, high0, low1, high1)                                        \
    codes = mps_four(at);                                                                \
    low0 = vpadalq_s16(low0, vmull_s8(vget_low_s8(first), vget_low_s8(codes)));          \
    high0 = vpadalq_s16(high0, vmull_high_s8(first, codes));                             \
    low1 = vpadalq_s16(low1, vmull_s8(vget_low_s8(second), vget_low_s8(codes)));         \
    high1 = vpadalq_s16(high1, vmull_high_s8(second, codes))

static void mps_pair_products(const int8_t *w, const int8_t *x, size_t stride, int groups,
                              int32_t *sums, int more) {
    const int8_t *x1 = x + stride, *x2 = x1 + stride, *x3 = x2 + stride;
    int32x4_t a = vdupq_n_s32(0), b = a, c = a, d = a, e = a, f = a, g = a, h = a;
    int32x4_t i = a, j = a, k = a, l = a, m = a, n = a, o = a, p = a;
    int8x16_t codes, more_codes;
    for (; groups > 1; groups -= 2, w += 64) {
        const int8x16_t first = vld1q_s8(w), second = vld1q_s8(w + 16);
        const int8x16_t third = vld1q_s8(w + 32), fourth = vld1q_s8(w + 48);
        MPS_ADD_TWO(x, a, b, c, d);
        MPS_ADD_TWO(x1, e, f, g, h);
        MPS_ADD_TWO(x2, i, j, k, l);
        MPS_ADD_TWO(x3, m, n, o, p);
    }
    if (groups) {
        const int8x16_t first = vld1q_s8(w), second = vld1q_s8(w + 16);
        MPS_ADD_ONE(x, a, b, c, d);
        MPS_ADD_ONE(x1, e, f, g, h);
        MPS_ADD_ONE(x2, i, j, k, l);
        MPS_ADD_ONE(x3, m, n, o, p);
    }
    mps_store(sums, a, b, more);
    mps_store(sums + 4, c, d, more);
    mps_store(sums + 8, e, f, more);
    mps_store(sums + 12, g, h, more);
    mps_store(sums + 16, i, j, more);
    mps_store(sums + 20, k, l, more);
    mps_store(sums + 24, m, n, more);
    mps_store(sums + 28, o, p, more);
}

#define MPS_SHORT 8 /* groups from which sums in 16 bits pay */

static void mps_products(const mps_layer *layer, const int8_t *w, const void *patches, size_t stride,
                         int groups, int32_t *sums, int more) {
    const int8_t *x = patches;
    if (layer->run < MPS_SHORT) {
        mps_pair_products(w, x, stride, groups, sums, more);
        return;
    }
    while (groups > 0) {
        const int count = groups < layer->run ? groups : layer->run;
        mps_short_products(w, x, stride, count, sums, more);
        w += MPS_GROUP * MPS_TILE * count, x += MPS_GROUP * count, groups -= count, more = 1;
    }
}

#else

static inline int mps_code_bytes(const mps_layer *layer) {
    (void)layer;
    return 1;
}

static inline void mps_centre(const mps_layer *layer, const unsigned char *codes, int count,
                              void *patch) {
    int8_t *to = patch;
    for (int i = 0; i < count; i++) to[i] = (int8_t)(codes[i] - layer->offset);
}

static void mps_products(const mps_layer *layer, const int8_t *w, const void *patches, size_t stride,
                         int groups, int32_t *sums, int more) {
    const int8_t *x = patches;
    (void)layer;
    for (int p = 0; p < MPS_TILE_POSITIONS; p++, x += stride, sums += MPS_TILE) {
        for (int channel = 0; channel < MPS_TILE; channel++) {
            const int8_t *weights = w + MPS_GROUP * channel, *codes = x;
            int32_t sum = more ? sums[channel] : 0;
            for (int i = 0; i < groups; i++, weights += MPS_GROUP * MPS_TILE, codes += MPS_GROUP)
                sum += weights[0] * codes[0] + weights[1] * codes[1] + weights[2] * codes[2] +
                       weights[3] * codes[3];
            sums[channel] = sum;
        }
    }
}

#endif

#endif
