/* Sums of products for a tile of 8 output channels and some positions, four at a time. Three ways to
   the same integers, chosen when compiling: AVX2, NEON, and plain C where neither is there (or with
   -DMPS_PORTABLE).

   Weights lie in groups of 4 terms: 4 weights of the first channel, 4 of the second, ... A patch is
   the row of codes - offset that one position multiplies with. No 32-bit sum overflows, as the
   export has proven; what fits 16 bits is said below. mps_products sets sums[position][channel], or
   adds to them. */
#ifndef MPS_PRODUCTS_H
#define MPS_PRODUCTS_H

#include "rescaling.h"

#define MPS_GROUP 4 /* terms */

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

static void mps_byte_single(int run, const int8_t *w, const unsigned char *x, int groups,
                            int32_t *sums, int more) {
    __m256i a = _mm256_setzero_si256();
    while (groups > 0) {
        int count = groups < run / 2 ? groups : run / 2;
        __m256i e = _mm256_setzero_si256();
        groups -= count;
        for (; count > 0; count--, w += 32, x += 4) {
            const __m256i weights = _mm256_loadu_si256((const __m256i *)(const void *)w);
            e = _mm256_add_epi16(e, _mm256_maddubs_epi16(mps_four(x), weights));
        }
        a = _mm256_add_epi32(a, _mm256_madd_epi16(e, _mm256_set1_epi16(1)));
    }
    mps_store(sums, a, more);
}

static inline __m256i mps_weights(const int8_t *w) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)w));
}

/* Sums of two products of a code and a weight, both widened to 16 bits, in 32 bits. */
static void mps_wide_products(const int8_t *w, const unsigned char *x, size_t stride, int groups,
                              int32_t *sums, int more) {
    const unsigned char *y = x + 2 * stride;
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a, e = a, f = a, g = a, h = a;
    for (; groups > 0; groups--, w += 32, x += 8, y += 8) {
        const __m256i lower = mps_weights(w), upper = mps_weights(w + 16);
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

static void mps_wide_single(const int8_t *w, const unsigned char *x, int groups, int32_t *sums,
                            int more) {
    __m256i a = _mm256_setzero_si256(), b = a;
    for (; groups > 0; groups--, w += 32, x += 8) {
        const __m256i codes = mps_four_wide(x);
        a = _mm256_add_epi32(a, _mm256_madd_epi16(mps_weights(w), codes));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(mps_weights(w + 16), codes));
    }
    mps_store(sums, mps_pairs(a, b), more);
}

static void mps_products(const mps_layer *layer, const int8_t *w, const void *patches, size_t stride,
                         int positions, int groups, int32_t *sums, int more) {
    const int bytes = mps_code_bytes(layer) == 1;
    const unsigned char *x = patches;
    for (; positions >= 4; positions -= 4, x += 4 * stride, sums += 4 * MPS_TILE) {
        if (bytes)
            mps_byte_products(layer->run, w, x, stride, groups, sums, more);
        else
            mps_wide_products(w, x, stride, groups, sums, more);
    }
    for (; positions > 0; positions--, x += stride, sums += MPS_TILE) {
        if (bytes)
            mps_byte_single(layer->run, w, x, groups, sums, more);
        else
            mps_wide_single(w, x, groups, sums, more);
    }
}

/* Only NEON finishes sums in registers. */
static inline int mps_products_to_bytes(const mps_layer *layer, const mps_constants *constants,
                                        const int8_t *w, const void *x, size_t stride, int positions,
                                        int groups, unsigned char *to, size_t apart) {
    (void)layer, (void)constants, (void)w, (void)x, (void)stride, (void)positions, (void)groups;
    (void)to, (void)apart;
    return 0;
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
    for (; i + 32 <= count; i += 32) {
        vst1q_u8(to + i, veorq_u8(vld1q_u8(codes + i), turn));
        vst1q_u8(to + i + 16, veorq_u8(vld1q_u8(codes + i + 16), turn));
    }
    if (i + 16 <= count) {
        vst1q_u8(to + i, veorq_u8(vld1q_u8(codes + i), turn));
        i += 16;
    }
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

/* Four codes to all lanes of 32 bits, and step on: compilers do not use this form of addressing. */
static inline MPS_INLINE int8x16_t mps_four(const int8_t **codes) {
    int8x16_t four;
    __asm__("ld1r {%0.4s}, [%1], #4"
            : "=w"(four), "+r"(*codes)
            : "m"(*(const int8_t(*)[4])(const void *)*codes));
    return four;
}

/* What follows on `next` waits for these sums: without it compilers load all codes first, for which
   there are no registers. */
#define MPS_THEN(next, a, b, c, d) __asm__("" : "+r"(next), "+w"(a), "+w"(b), "+w"(c), "+w"(d))

/* Sums of five positions: [2 * position] for channels 0 to 3, then 4 to 7. */
typedef struct {
    int32x4_t of[10];
} mps_five;

/* Lanes are (channel, term of the group): two channels in each half of a vector of weights. Here 16
   bits hold a lane's sum over all groups: `run` groups at most. */
#define MPS_ADD(codes, a, b, c, d)                                                          \
    do {                                                                                          \
        const int8x16_t four = mps_four(&codes);                                                  \
        a = vmlal_s8(a, vget_low_s8(w0), vget_low_s8(four)), b = vmlal_high_s8(b, w0, four);      \
        c = vmlal_s8(c, vget_low_s8(w1), vget_low_s8(four)), d = vmlal_high_s8(d, w1, four);      \
    } while (0)
#define MPS_BEGIN(codes, a, b, c, d)                                                        \
    do {                                                                                          \
        const int8x16_t four = mps_four(&codes);                                                  \
        a = vmull_s8(vget_low_s8(w0), vget_low_s8(four)), b = vmull_high_s8(w0, four);            \
        c = vmull_s8(vget_low_s8(w1), vget_low_s8(four)), d = vmull_high_s8(w1, four);            \
    } while (0)
#define MPS_SHORT_SUMS(place, a, b, c, d)                                  \
    sums.of[place] = vpaddq_s32(vpaddlq_s16(a), vpaddlq_s16(b)),           \
    sums.of[place + 1] = vpaddq_s32(vpaddlq_s16(c), vpaddlq_s16(d))

static inline MPS_INLINE mps_five mps_short_five(const int8_t *w, const int8_t *x0, size_t stride,
                                                 int groups) {
    const int8_t *x1 = x0 + stride, *x2 = x1 + stride, *x3 = x2 + stride, *x4 = x3 + stride;
    const int8_t *end = w + 32 * groups;
    int16x8_t a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t;
    int8x16_t w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16);
    mps_five sums;
    MPS_BEGIN(x0, a, b, c, d); MPS_THEN(x1, a, b, c, d);
    MPS_BEGIN(x1, e, f, g, h); MPS_THEN(x2, e, f, g, h);
    MPS_BEGIN(x2, i, j, k, l); MPS_THEN(x3, i, j, k, l);
    MPS_BEGIN(x3, m, n, o, p); MPS_THEN(x4, m, n, o, p);
    MPS_BEGIN(x4, q, r, s, t);
    w += 32;
    if ((groups & 1) == 0) { /* then two at a time */
        w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16);
        MPS_ADD(x0, a, b, c, d); MPS_THEN(x1, a, b, c, d);
        MPS_ADD(x1, e, f, g, h); MPS_THEN(x2, e, f, g, h);
        MPS_ADD(x2, i, j, k, l); MPS_THEN(x3, i, j, k, l);
        MPS_ADD(x3, m, n, o, p); MPS_THEN(x4, m, n, o, p);
        MPS_ADD(x4, q, r, s, t);
        w += 32;
    }
    for (; w != end; w += 32) {
        w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16);
        MPS_ADD(x0, a, b, c, d); MPS_THEN(x1, a, b, c, d);
        MPS_ADD(x1, e, f, g, h); MPS_THEN(x2, e, f, g, h);
        MPS_ADD(x2, i, j, k, l); MPS_THEN(x3, i, j, k, l);
        MPS_ADD(x3, m, n, o, p); MPS_THEN(x4, m, n, o, p);
        MPS_ADD(x4, q, r, s, t);
        w += 32;
        w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16);
        MPS_ADD(x0, a, b, c, d); MPS_THEN(x1, a, b, c, d);
        MPS_ADD(x1, e, f, g, h); MPS_THEN(x2, e, f, g, h);
        MPS_ADD(x2, i, j, k, l); MPS_THEN(x3, i, j, k, l);
        MPS_ADD(x3, m, n, o, p); MPS_THEN(x4, m, n, o, p);
        MPS_ADD(x4, q, r, s, t);
    }
    MPS_SHORT_SUMS(0, a, b, c, d), MPS_SHORT_SUMS(2, e, f, g, h), MPS_SHORT_SUMS(4, i, j, k, l);
    MPS_SHORT_SUMS(6, m, n, o, p), MPS_SHORT_SUMS(8, q, r, s, t);
    return sums;
}

static inline MPS_INLINE mps_five mps_short_one(const int8_t *w, const int8_t *x, int groups) {
    const int8_t *end = w + 32 * groups;
    int16x8_t a, b, c, d;
    int8x16_t w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16);
    mps_five sums;
    MPS_BEGIN(x, a, b, c, d);
    w += 32;
    if ((groups & 1) == 0) { /* then two at a time */
        w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16);
        MPS_ADD(x, a, b, c, d);
        w += 32;
    }
    for (; w != end; w += 32) {
        w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16);
        MPS_ADD(x, a, b, c, d);
        w += 32;
        w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16);
        MPS_ADD(x, a, b, c, d);
    }
    MPS_SHORT_SUMS(0, a, b, c, d);
    return sums;
}

/* Two products fit 16 bits: |code - 128| <= 128 and |w| <= 127. Two groups at a time; the first ones
   are not added to anything, and a last one is alone. */
#define MPS_LOW(w0, w2) \
    vmlal_s8(vmull_s8(vget_low_s8(w0), vget_low_s8(four)), vget_low_s8(w2), vget_low_s8(then))
#define MPS_HIGH(w0, w2) vmlal_high_s8(vmull_high_s8(w0, four), w2, then)
#define MPS_BEGIN_TWO(codes, a, b, c, d)                                                    \
    do {                                                                                          \
        const int8x16_t four = mps_four(&codes), then = mps_four(&codes);                         \
        a = vpaddlq_s16(MPS_LOW(w0, w2)), b = vpaddlq_s16(MPS_HIGH(w0, w2));                      \
        c = vpaddlq_s16(MPS_LOW(w1, w3)), d = vpaddlq_s16(MPS_HIGH(w1, w3));                      \
    } while (0)
#define MPS_ADD_TWO(codes, a, b, c, d)                                                      \
    do {                                                                                          \
        const int8x16_t four = mps_four(&codes), then = mps_four(&codes);                         \
        a = vpadalq_s16(a, MPS_LOW(w0, w2)), b = vpadalq_s16(b, MPS_HIGH(w0, w2));                \
        c = vpadalq_s16(c, MPS_LOW(w1, w3)), d = vpadalq_s16(d, MPS_HIGH(w1, w3));                \
    } while (0)
#define MPS_ADD_ONE(codes, a, b, c, d)                                                      \
    do {                                                                                          \
        const int8x16_t four = mps_four(&codes);                                                  \
        a = vpadalq_s16(a, vmull_s8(vget_low_s8(w0), vget_low_s8(four)));                         \
        b = vpadalq_s16(b, vmull_high_s8(w0, four));                                              \
        c = vpadalq_s16(c, vmull_s8(vget_low_s8(w1), vget_low_s8(four)));                         \
        d = vpadalq_s16(d, vmull_high_s8(w1, four));                                              \
    } while (0)
#define MPS_FOUR_WEIGHTS \
    w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16), w2 = vld1q_s8(w + 32), w3 = vld1q_s8(w + 48)
#define MPS_SUMS(place, a, b, c, d) \
    sums.of[place] = vpaddq_s32(a, b), sums.of[place + 1] = vpaddq_s32(c, d)

/* two groups or more */
static inline MPS_INLINE mps_five mps_pair_five(const int8_t *w, const int8_t *x0, size_t stride,
                                                int groups) {
    const int8_t *x1 = x0 + stride, *x2 = x1 + stride, *x3 = x2 + stride, *x4 = x3 + stride;
    const int8_t *end = w + groups / 2 * 64;
    int32x4_t a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t;
    int8x16_t w0, w1, w2, w3;
    mps_five sums;
    MPS_FOUR_WEIGHTS;
    MPS_BEGIN_TWO(x0, a, b, c, d); MPS_THEN(x1, a, b, c, d);
    MPS_BEGIN_TWO(x1, e, f, g, h); MPS_THEN(x2, e, f, g, h);
    MPS_BEGIN_TWO(x2, i, j, k, l); MPS_THEN(x3, i, j, k, l);
    MPS_BEGIN_TWO(x3, m, n, o, p); MPS_THEN(x4, m, n, o, p);
    MPS_BEGIN_TWO(x4, q, r, s, t);
    for (w += 64; w != end; w += 64) {
        MPS_FOUR_WEIGHTS;
        MPS_ADD_TWO(x0, a, b, c, d); MPS_THEN(x1, a, b, c, d);
        MPS_ADD_TWO(x1, e, f, g, h); MPS_THEN(x2, e, f, g, h);
        MPS_ADD_TWO(x2, i, j, k, l); MPS_THEN(x3, i, j, k, l);
        MPS_ADD_TWO(x3, m, n, o, p); MPS_THEN(x4, m, n, o, p);
        MPS_ADD_TWO(x4, q, r, s, t);
    }
    if (groups & 1) {
        w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16);
        MPS_ADD_ONE(x0, a, b, c, d); MPS_THEN(x1, a, b, c, d);
        MPS_ADD_ONE(x1, e, f, g, h); MPS_THEN(x2, e, f, g, h);
        MPS_ADD_ONE(x2, i, j, k, l); MPS_THEN(x3, i, j, k, l);
        MPS_ADD_ONE(x3, m, n, o, p); MPS_THEN(x4, m, n, o, p);
        MPS_ADD_ONE(x4, q, r, s, t);
    }
    MPS_SUMS(0, a, b, c, d), MPS_SUMS(2, e, f, g, h), MPS_SUMS(4, i, j, k, l);
    MPS_SUMS(6, m, n, o, p), MPS_SUMS(8, q, r, s, t);
    return sums;
}

static inline MPS_INLINE mps_five mps_pair_one(const int8_t *w, const int8_t *x, int groups) {
    const int8_t *end = w + groups / 2 * 64;
    int32x4_t a, b, c, d;
    int8x16_t w0, w1, w2, w3;
    mps_five sums;
    MPS_FOUR_WEIGHTS;
    MPS_BEGIN_TWO(x, a, b, c, d);
    for (w += 64; w != end; w += 64) {
        MPS_FOUR_WEIGHTS;
        MPS_ADD_TWO(x, a, b, c, d);
    }
    if (groups & 1) {
        w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16);
        MPS_ADD_ONE(x, a, b, c, d);
    }
    MPS_SUMS(0, a, b, c, d);
    return sums;
}

static inline MPS_INLINE void mps_store(const mps_five *five, int count, int32_t *sums, int more) {
#pragma GCC unroll 10
    for (int i = 0; i < 2 * count; i++, sums += 4) {
        int32x4_t total = five->of[i];
        if (more) total = vaddq_s32(total, vld1q_s32(sums));
        vst1q_s32(sums, total);
    }
}

/* All positions with one kernel; `pairs` is a constant. */
static inline MPS_INLINE void mps_positions(int pairs, const int8_t *w, const int8_t *x,
                                            size_t stride, int positions, int groups, int32_t *sums,
                                            int more) {
    for (; positions >= 5; positions -= 5, x += 5 * stride, sums += 5 * MPS_TILE) {
        const mps_five five =
            pairs ? mps_pair_five(w, x, stride, groups) : mps_short_five(w, x, stride, groups);
        mps_store(&five, 5, sums, more);
    }
    for (; positions > 0; positions--, x += stride, sums += MPS_TILE) {
        const mps_five one = pairs ? mps_pair_one(w, x, groups) : mps_short_one(w, x, groups);
        mps_store(&one, 1, sums, more);
    }
}

static MPS_APART void mps_pair_products(const int8_t *w, const int8_t *x, size_t stride,
                                        int positions, int groups, int32_t *sums, int more) {
    mps_positions(1, w, x, stride, positions, groups, sums, more);
}

static MPS_APART void mps_short_products(const int8_t *w, const int8_t *x, size_t stride,
                                         int positions, int groups, int32_t *sums, int more) {
    mps_positions(0, w, x, stride, positions, groups, sums, more);
}

#define MPS_SHORT 8 /* groups from which sums in 16 bits pay */

static void mps_products(const mps_layer *layer, const int8_t *w, const void *patches, size_t stride,
                         int positions, int groups, int32_t *sums, int more) {
    const int8_t *x = patches;
    if (layer->run < MPS_SHORT && groups > 1) {
        mps_pair_products(w, x, stride, positions, groups, sums, more);
        return;
    }
    for (int count; groups > 0; groups -= count) {
        count = groups < layer->run ? groups : layer->run;
        mps_short_products(w, x, stride, positions, count, sums, more);
        w += MPS_GROUP * MPS_TILE * count, x += MPS_GROUP * count, more = 1;
    }
}

/* As mps_products and mps_finish_rows at once, without going through memory: 8 codes of one byte for
   every position. 0: this layer needs these two. */
static inline MPS_INLINE void mps_finish_five(const mps_layer *layer, const mps_constants *constants,
                                              int clip, const mps_five *five, int count,
                                              unsigned char *to, size_t stride) {
    const mps_vectors v = mps_vectors_of(constants);
    const int16x8_t zero = vdupq_n_s16((int16_t)layer->output_zero);
#pragma GCC unroll 3
    for (int p = 0; p < count; p += 2, to += 2 * stride) {
        const int16x8_t a = vqaddq_s16(mps_upper(&v, clip ? layer->raise : 0, five->of[2 * p], five->of[2 * p + 1]), zero);
        uint8x16_t codes;
        if (p + 1 < count) {
            const int16x8_t b =
                vqaddq_s16(mps_upper(&v, clip ? layer->raise : 0, five->of[2 * p + 2], five->of[2 * p + 3]), zero);
            codes = vqmovun_high_s16(vqmovun_s16(a), b);
        } else {
            codes = vcombine_u8(vqmovun_s16(a), vdup_n_u8(0));
        }
        if (clip)
            codes = vminq_u8(vmaxq_u8(codes, vdupq_n_u8((uint8_t)layer->low)),
                             vdupq_n_u8((uint8_t)layer->high));
        vst1_u8(to, vget_low_u8(codes));
        if (p + 1 < count)
            vst1q_lane_u64((uint64_t *)(void *)(to + stride), vreinterpretq_u64_u8(codes), 1);
    }
}

static inline MPS_INLINE void mps_positions_to_bytes(const mps_layer *layer,
                                                     const mps_constants *constants, int pairs,
                                                     int clip, const int8_t *w, const int8_t *x,
                                                     size_t stride, int positions, int groups,
                                                     unsigned char *to, size_t apart) {
    for (; positions >= 5; positions -= 5, x += 5 * stride, to += 5 * apart) {
        const mps_five five =
            pairs ? mps_pair_five(w, x, stride, groups) : mps_short_five(w, x, stride, groups);
        mps_finish_five(layer, constants, clip, &five, 5, to, apart);
    }
    for (; positions > 0; positions--, x += stride, to += apart) {
        const mps_five one = pairs ? mps_pair_one(w, x, groups) : mps_short_one(w, x, groups);
        mps_finish_five(layer, constants, clip, &one, 1, to, apart);
    }
}

static MPS_APART int mps_products_to_bytes(const mps_layer *layer, const mps_constants *constants,
                                           const int8_t *w, const void *x, size_t stride,
                                           int positions, int groups, unsigned char *to,
                                           size_t apart) {
    const int pairs = layer->run < MPS_SHORT && groups > 1;
    const int clip = layer->low != 0 || layer->high != 255 || layer->raise != 0;
    if (layer->rounding != MPS_HALF_UP || layer->output_type != MPS_U8) return 0;
    if (!pairs && groups > layer->run) return 0;
    if (pairs)
        mps_positions_to_bytes(layer, constants, 1, clip, w, x, stride, positions, groups, to, apart);
    else
        mps_positions_to_bytes(layer, constants, 0, clip, w, x, stride, positions, groups, to, apart);
    return 1;
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

/* Loops over 32 weights and 32 repeated codes, which compilers turn into vectors. */
static void mps_products(const mps_layer *layer, const int8_t *w, const void *patches, size_t stride,
                         int positions, int groups, int32_t *sums, int more) {
    const int8_t *x = patches;
    (void)layer;
    for (int p = 0; p < positions; p++, x += stride, sums += MPS_TILE) {
        int32_t all[MPS_TILE * MPS_GROUP] = {0};
        for (int g = 0; g < groups; g++) {
            const int8_t *weights = w + MPS_TILE * MPS_GROUP * g, *codes = x + MPS_GROUP * g;
            int8_t repeated[MPS_TILE * MPS_GROUP];
            for (int i = 0; i < MPS_TILE; i++) memcpy(repeated + MPS_GROUP * i, codes, MPS_GROUP);
            for (int i = 0; i < MPS_TILE * MPS_GROUP; i++)
                all[i] += (int16_t)(weights[i] * repeated[i]); /* fits: 127 * 128 */
        }
        for (int channel = 0; channel < MPS_TILE; channel++) {
            const int32_t *four = all + MPS_GROUP * channel;
            sums[channel] = (more ? sums[channel] : 0) + four[0] + four[1] + four[2] + four[3];
        }
    }
}

/* Only NEON finishes sums in registers. */
static inline int mps_products_to_bytes(const mps_layer *layer, const mps_constants *constants,
                                        const int8_t *w, const void *x, size_t stride, int positions,
                                        int groups, unsigned char *to, size_t apart) {
    (void)layer, (void)constants, (void)w, (void)x, (void)stride, (void)positions, (void)groups;
    (void)to, (void)apart;
    return 0;
}

#endif

#endif
