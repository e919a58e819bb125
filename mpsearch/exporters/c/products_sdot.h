/* products.h with the dot products of Armv8.2 (SDOT): a lane of a vector is a channel's group of 4
   terms, multiplied with 4 codes and added to the channel's sum in 32 bits. Ten positions at a
   time: their sums are 20 registers, 8 hold weights. */
#include "centring_neon.h"

#define MPS_TEN 10

/* Sums of `count` positions, a constant: [2 * position] for channels 0 to 3, then 4 to 7. */
typedef struct {
    int32x4_t of[2 * MPS_TEN];
} mps_ten;

/* What follows on `next` waits for these sums: without it compilers load all codes first, for which
   there are no registers. */
#define MPS_THEN(next, a, b) __asm__("" : "+r"(next), "+w"(a), "+w"(b))

/* Two groups of weights, `w`, with codes in `lane` and `lane` + 1. */
#define MPS_TWO_GROUPS(dot, w, lane)       \
    a = dot(a, w.val[0], codes, lane);     \
    b = dot(b, w.val[1], codes, lane);     \
    a = dot(a, w.val[2], codes, lane + 1); \
    b = dot(b, w.val[3], codes, lane + 1)

static inline MPS_INLINE void mps_dots(int count, const int8_t *w, const int8_t *x, size_t stride,
                                       int groups, mps_ten *sums) {
    const int8_t *const end = w + groups / 4 * 128, *at[MPS_TEN + 1];
#pragma GCC unroll 11
    for (int p = 0; p <= count; p++, x += stride) {
        __asm__("" : "+r"(x)); /* one addition each */
        at[p] = x;
    }
    while (w != end) {
        const int8x16x4_t u = vld1q_s8_x4(w), v = vld1q_s8_x4(w + 64);
        w += 128;
#pragma GCC unroll 10
        for (int p = 0; p < count; p++) {
            const int8x16_t codes = vld1q_s8(at[p]);
            int32x4_t a = sums->of[2 * p], b = sums->of[2 * p + 1];
            at[p] += 16;
            MPS_TWO_GROUPS(vdotq_laneq_s32, u, 0);
            MPS_TWO_GROUPS(vdotq_laneq_s32, v, 2);
            MPS_THEN(at[p + 1], a, b);
            sums->of[2 * p] = a, sums->of[2 * p + 1] = b;
        }
    }
    if (groups & 2) {
        const int8x16x4_t u = vld1q_s8_x4(w);
        w += 64;
#pragma GCC unroll 10
        for (int p = 0; p < count; p++) {
            const int8x8_t codes = vld1_s8(at[p]);
            int32x4_t a = sums->of[2 * p], b = sums->of[2 * p + 1];
            at[p] += 8;
            MPS_TWO_GROUPS(vdotq_lane_s32, u, 0);
            MPS_THEN(at[p + 1], a, b);
            sums->of[2 * p] = a, sums->of[2 * p + 1] = b;
        }
    }
    if (groups & 1) {
        const int8x16_t first = vld1q_s8(w), second = vld1q_s8(w + 16);
#pragma GCC unroll 10
        for (int p = 0; p < count; p++) {
            int32_t four;
            int8x16_t codes;
            memcpy(&four, at[p], 4);
            codes = vreinterpretq_s8_s32(vdupq_n_s32(four));
            sums->of[2 * p] = vdotq_s32(sums->of[2 * p], first, codes);
            sums->of[2 * p + 1] = vdotq_s32(sums->of[2 * p + 1], second, codes);
            MPS_THEN(at[p + 1], sums->of[2 * p], sums->of[2 * p + 1]);
        }
    }
}

static inline MPS_INLINE void mps_some_sums(int count, const int8_t *w, const int8_t *x,
                                            size_t stride, int groups, int32_t *sums, int more) {
    mps_ten ten;
#pragma GCC unroll 20
    for (int i = 0; i < 2 * count; i++)
        ten.of[i] = more ? vld1q_s32(sums + 4 * i) : vdupq_n_s32(0);
    mps_dots(count, w, x, stride, groups, &ten);
#pragma GCC unroll 20
    for (int i = 0; i < 2 * count; i++)
        vst1q_s32(sums + 4 * i, ten.of[i]);
}

static MPS_APART void mps_products(const mps_layer *layer, const int8_t *w, const void *patches,
                                   size_t stride, int positions, int groups, int32_t *sums,
                                   int more) {
    const int8_t *x = patches;
    (void)layer;
    for (; positions >= MPS_TEN; positions -= MPS_TEN, x += MPS_TEN * stride) {
        mps_some_sums(MPS_TEN, w, x, stride, groups, sums, more);
        sums += MPS_TEN * MPS_TILE;
    }
    for (; positions > 0; positions--, x += stride, sums += MPS_TILE)
        mps_some_sums(1, w, x, stride, groups, sums, more);
}

/* Codes of `count` positions; raised and clipped where `clip` says so. */
static inline MPS_INLINE void mps_some_codes(const mps_layer *layer, const mps_vectors *v, int clip,
                                             int count, const int8_t *w, const int8_t *x,
                                             size_t stride, int groups, unsigned char *to,
                                             size_t apart) {
    const int16x8_t zero = vdupq_n_s16((int16_t)layer->output_zero);
    const int32x4_t raise = vdupq_n_s32(layer->raise);
    mps_ten ten;
#pragma GCC unroll 10
    for (int p = 0; p < count; p++)
        ten.of[2 * p] = v->base[0], ten.of[2 * p + 1] = v->base[1];
    mps_dots(count, w, x, stride, groups, &ten);
#pragma GCC unroll 10
    for (int p = 0; p < count; p++) {
        int32x4_t a = ten.of[2 * p], b = ten.of[2 * p + 1];
        uint8x8_t codes;
        if (clip)
            a = vshlq_s32(a, raise), b = vshlq_s32(b, raise);
        codes = vqmovun_s16(vqaddq_s16(mps_narrow(v, a, b), zero));
        if (clip)
            codes = vmin_u8(vmax_u8(codes, vdup_n_u8((uint8_t)layer->low)),
                            vdup_n_u8((uint8_t)layer->high));
        mps_store_codes(&to, apart, codes);
    }
}

static inline MPS_INLINE void mps_all_codes(const mps_layer *layer, const mps_constants *constants,
                                            int clip, const int8_t *w, const int8_t *x,
                                            size_t stride, int positions, int groups,
                                            unsigned char *to, size_t apart) {
    const mps_vectors v = mps_vectors_of(constants);
    for (; positions >= MPS_TEN; positions -= MPS_TEN, x += MPS_TEN * stride) {
        mps_some_codes(layer, &v, clip, MPS_TEN, w, x, stride, groups, to, apart);
        to += MPS_TEN * apart;
    }
    for (; positions > 0; positions--, x += stride, to += apart)
        mps_some_codes(layer, &v, clip, 1, w, x, stride, groups, to, apart);
}

/* As mps_products and mps_finish_rows at once, without going through memory: 8 codes of one byte
   for every position. 0: this layer needs these two. */
static MPS_APART int mps_products_to_bytes(const mps_layer *layer, const mps_constants *constants,
                                           const int8_t *w, const void *x, size_t stride,
                                           int positions, int groups, unsigned char *to,
                                           size_t apart) {
    if (!mps_to_bytes(layer))
        return 0;
    if (mps_raised_or_clipped(layer))
        mps_all_codes(layer, constants, 1, w, x, stride, positions, groups, to, apart);
    else
        mps_all_codes(layer, constants, 0, w, x, stride, positions, groups, to, apart);
    return 1;
}
