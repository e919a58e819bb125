/* products.h with NEON: 2 channels of 4 terms are half a vector, five positions at a time. */
#include "centring_neon.h"

/* Four codes to all lanes of 32 bits, and step on: compilers do not use this form of addressing. */
static inline MPS_INLINE int8x16_t mps_four(const int8_t **codes) {
    int8x16_t four;
    __asm__("ld1r {%0.4s}, [%1], #4"
            : "=w"(four), "+r"(*codes)
            : "m"(*(const int8_t (*)[4])(const void *)*codes));
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
#define MPS_ADD(codes, a, b, c, d)                                                           \
    do {                                                                                     \
        const int8x16_t four = mps_four(&codes);                                             \
        a = vmlal_s8(a, vget_low_s8(w0), vget_low_s8(four)), b = vmlal_high_s8(b, w0, four); \
        c = vmlal_s8(c, vget_low_s8(w1), vget_low_s8(four)), d = vmlal_high_s8(d, w1, four); \
    } while (0)
#define MPS_BEGIN(codes, a, b, c, d)                                                   \
    do {                                                                               \
        const int8x16_t four = mps_four(&codes);                                       \
        a = vmull_s8(vget_low_s8(w0), vget_low_s8(four)), b = vmull_high_s8(w0, four); \
        c = vmull_s8(vget_low_s8(w1), vget_low_s8(four)), d = vmull_high_s8(w1, four); \
    } while (0)
#define MPS_SHORT_SUMS(place, a, b, c, d)                        \
    sums.of[place] = vpaddq_s32(vpaddlq_s16(a), vpaddlq_s16(b)), \
    sums.of[place + 1] = vpaddq_s32(vpaddlq_s16(c), vpaddlq_s16(d))

static inline MPS_INLINE mps_five mps_short_five(const int8_t *w, const int8_t *x0, size_t stride,
                                                 int groups) {
    const int8_t *x1 = x0 + stride, *x2 = x1 + stride, *x3 = x2 + stride, *x4 = x3 + stride;
    const int8_t *end = w + 32 * groups;
    int16x8_t a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t;
    int8x16_t w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16);
    mps_five sums;
    MPS_BEGIN(x0, a, b, c, d);
    MPS_THEN(x1, a, b, c, d);
    MPS_BEGIN(x1, e, f, g, h);
    MPS_THEN(x2, e, f, g, h);
    MPS_BEGIN(x2, i, j, k, l);
    MPS_THEN(x3, i, j, k, l);
    MPS_BEGIN(x3, m, n, o, p);
    MPS_THEN(x4, m, n, o, p);
    MPS_BEGIN(x4, q, r, s, t);
    w += 32;
    if ((groups & 1) == 0) { /* then two at a time */
        w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16);
        MPS_ADD(x0, a, b, c, d);
        MPS_THEN(x1, a, b, c, d);
        MPS_ADD(x1, e, f, g, h);
        MPS_THEN(x2, e, f, g, h);
        MPS_ADD(x2, i, j, k, l);
        MPS_THEN(x3, i, j, k, l);
        MPS_ADD(x3, m, n, o, p);
        MPS_THEN(x4, m, n, o, p);
        MPS_ADD(x4, q, r, s, t);
        w += 32;
    }
    for (; w != end; w += 32) {
        w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16);
        MPS_ADD(x0, a, b, c, d);
        MPS_THEN(x1, a, b, c, d);
        MPS_ADD(x1, e, f, g, h);
        MPS_THEN(x2, e, f, g, h);
        MPS_ADD(x2, i, j, k, l);
        MPS_THEN(x3, i, j, k, l);
        MPS_ADD(x3, m, n, o, p);
        MPS_THEN(x4, m, n, o, p);
        MPS_ADD(x4, q, r, s, t);
        w += 32;
        w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16);
        MPS_ADD(x0, a, b, c, d);
        MPS_THEN(x1, a, b, c, d);
        MPS_ADD(x1, e, f, g, h);
        MPS_THEN(x2, e, f, g, h);
        MPS_ADD(x2, i, j, k, l);
        MPS_THEN(x3, i, j, k, l);
        MPS_ADD(x3, m, n, o, p);
        MPS_THEN(x4, m, n, o, p);
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

/* Two products fit 16 bits: |code - 128| <= 128 and |w| <= 127. Two groups at a time; the first
   ones are not added to anything, and a last one is alone. */
#define MPS_LOW(w0, w2) \
    vmlal_s8(vmull_s8(vget_low_s8(w0), vget_low_s8(four)), vget_low_s8(w2), vget_low_s8(then))
#define MPS_HIGH(w0, w2) vmlal_high_s8(vmull_high_s8(w0, four), w2, then)
#define MPS_BEGIN_TWO(codes, a, b, c, d)                                     \
    do {                                                                     \
        const int8x16_t four = mps_four(&codes), then = mps_four(&codes);    \
        a = vpaddlq_s16(MPS_LOW(w0, w2)), b = vpaddlq_s16(MPS_HIGH(w0, w2)); \
        c = vpaddlq_s16(MPS_LOW(w1, w3)), d = vpaddlq_s16(MPS_HIGH(w1, w3)); \
    } while (0)
#define MPS_ADD_TWO(codes, a, b, c, d)                                             \
    do {                                                                           \
        const int8x16_t four = mps_four(&codes), then = mps_four(&codes);          \
        a = vpadalq_s16(a, MPS_LOW(w0, w2)), b = vpadalq_s16(b, MPS_HIGH(w0, w2)); \
        c = vpadalq_s16(c, MPS_LOW(w1, w3)), d = vpadalq_s16(d, MPS_HIGH(w1, w3)); \
    } while (0)
#define MPS_ADD_ONE(codes, a, b, c, d)                                    \
    do {                                                                  \
        const int8x16_t four = mps_four(&codes);                          \
        a = vpadalq_s16(a, vmull_s8(vget_low_s8(w0), vget_low_s8(four))); \
        b = vpadalq_s16(b, vmull_high_s8(w0, four));                      \
        c = vpadalq_s16(c, vmull_s8(vget_low_s8(w1), vget_low_s8(four))); \
        d = vpadalq_s16(d, vmull_high_s8(w1, four));                      \
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
    MPS_BEGIN_TWO(x0, a, b, c, d);
    MPS_THEN(x1, a, b, c, d);
    MPS_BEGIN_TWO(x1, e, f, g, h);
    MPS_THEN(x2, e, f, g, h);
    MPS_BEGIN_TWO(x2, i, j, k, l);
    MPS_THEN(x3, i, j, k, l);
    MPS_BEGIN_TWO(x3, m, n, o, p);
    MPS_THEN(x4, m, n, o, p);
    MPS_BEGIN_TWO(x4, q, r, s, t);
    for (w += 64; w != end; w += 64) {
        MPS_FOUR_WEIGHTS;
        MPS_ADD_TWO(x0, a, b, c, d);
        MPS_THEN(x1, a, b, c, d);
        MPS_ADD_TWO(x1, e, f, g, h);
        MPS_THEN(x2, e, f, g, h);
        MPS_ADD_TWO(x2, i, j, k, l);
        MPS_THEN(x3, i, j, k, l);
        MPS_ADD_TWO(x3, m, n, o, p);
        MPS_THEN(x4, m, n, o, p);
        MPS_ADD_TWO(x4, q, r, s, t);
    }
    if (groups & 1) {
        w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16);
        MPS_ADD_ONE(x0, a, b, c, d);
        MPS_THEN(x1, a, b, c, d);
        MPS_ADD_ONE(x1, e, f, g, h);
        MPS_THEN(x2, e, f, g, h);
        MPS_ADD_ONE(x2, i, j, k, l);
        MPS_THEN(x3, i, j, k, l);
        MPS_ADD_ONE(x3, m, n, o, p);
        MPS_THEN(x4, m, n, o, p);
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
        if (more)
            total = vaddq_s32(total, vld1q_s32(sums));
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

static void mps_products(const mps_layer *layer, const int8_t *w, const void *patches,
                         size_t stride, int positions, int groups, int32_t *sums, int more) {
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

/* Codes of `count` positions; raised and clipped where `clip` says so. */
static inline MPS_INLINE void mps_finish_five(const mps_layer *layer,
                                              const mps_constants *constants, int clip,
                                              const mps_five *five, int count, unsigned char *to,
                                              size_t stride) {
    const mps_vectors v = mps_vectors_of(constants);
    const int16x8_t zero = vdupq_n_s16((int16_t)layer->output_zero);
#pragma GCC unroll 3
    for (int p = 0; p < count; p += 2, to += 2 * stride) {
        const int raise = clip ? layer->raise : 0;
        const int32x4_t *x = five->of + 2 * p;
        const int16x8_t a = vqaddq_s16(mps_upper(&v, raise, x[0], x[1]), zero);
        uint8x16_t codes;
        if (p + 1 < count) {
            const int16x8_t b = vqaddq_s16(mps_upper(&v, raise, x[2], x[3]), zero);
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

/* As mps_products and mps_finish_rows at once, without going through memory: 8 codes of one byte
   for every position. 0: this layer needs these two. */
static MPS_APART int mps_products_to_bytes(const mps_layer *layer, const mps_constants *constants,
                                           const int8_t *w, const void *x, size_t stride,
                                           int positions, int groups, unsigned char *to,
                                           size_t apart) {
    const int pairs = layer->run < MPS_SHORT && groups > 1;
    const int clip = mps_raised_or_clipped(layer);
    if (!mps_to_bytes(layer))
        return 0;
    if (!pairs && groups > layer->run)
        return 0;
    if (pairs)
        mps_positions_to_bytes(layer, constants, 1, clip, w, x, stride, positions, groups, to,
                               apart);
    else
        mps_positions_to_bytes(layer, constants, 0, clip, w, x, stride, positions, groups, to,
                               apart);
    return 1;
}
