/* rescaling.h with NEON. */
#include <arm_neon.h>

typedef struct {
    int32x4_t base[2], multiplier[2], shift[2];
} mps_vectors;

static inline mps_vectors mps_vectors_of(const mps_constants *c) {
    mps_vectors v;
    for (int i = 0; i < 2; i++) {
        v.base[i] = vld1q_s32(c->base + 4 * i);
        v.multiplier[i] = vld1q_s32(c->multiplier + 4 * i);
        v.shift[i] = vsubq_s32(vdupq_n_s32(31), vld1q_s32(c->shift + 4 * i));
    }
    return v;
}

/* a = 31: the upper half of a doubled product, then a shift that rounds half up */
static inline MPS_INLINE int16x8_t mps_narrow(const mps_vectors *v, int32x4_t x, int32x4_t y) {
    x = vrshlq_s32(vqdmulhq_s32(x, v->multiplier[0]), v->shift[0]);
    y = vrshlq_s32(vqdmulhq_s32(y, v->multiplier[1]), v->shift[1]);
    return vqmovn_high_s32(vqmovn_s32(x), y);
}

/* 8 codes, and step on: compilers do not use this form of addressing. */
static inline MPS_INLINE void mps_store_codes(unsigned char **to, size_t apart, uint8x8_t codes) {
    __asm__("st1 {%2.8b}, [%0], %3"
            : "+r"(*to), "=m"(*(unsigned char (*)[8]) * to)
            : "w"(codes), "r"(apart));
}

static inline MPS_INLINE int16x8_t mps_upper(const mps_vectors *v, int raise, int32x4_t x,
                                             int32x4_t y) {
    x = vaddq_s32(x, v->base[0]), y = vaddq_s32(y, v->base[1]);
    if (raise)
        x = vshlq_s32(x, vdupq_n_s32(raise)), y = vshlq_s32(y, vdupq_n_s32(raise));
    return mps_narrow(v, x, y);
}

/* Rows of 8 sums -> 8 codes of one byte each, clipped where `clip` says that the byte's range is
   not enough; sums are there up to a multiple of four rows. `clip` and a `raise` of 0 are
   constants. */
static inline MPS_INLINE void mps_bytes(const mps_layer *layer, const mps_vectors *v, int clip,
                                        int raise, const int32_t *sums, int rows, unsigned char *to,
                                        size_t stride) {
    const int16x8_t zero = vdupq_n_s16((int16_t)layer->output_zero);
    const uint8x16_t low = vdupq_n_u8((uint8_t)layer->low), high = vdupq_n_u8((uint8_t)layer->high);
    for (; rows > 0; rows -= 2, sums += 2 * MPS_TILE, to += 2 * stride) {
        const int16x8_t a =
            vqaddq_s16(mps_upper(v, raise, vld1q_s32(sums), vld1q_s32(sums + 4)), zero);
        const int16x8_t b =
            vqaddq_s16(mps_upper(v, raise, vld1q_s32(sums + 8), vld1q_s32(sums + 12)), zero);
        uint8x16_t codes = vqmovun_high_s16(vqmovun_s16(a), b);
        if (clip)
            codes = vminq_u8(vmaxq_u8(codes, low), high);
        vst1_u8(to, vget_low_u8(codes));
        if (rows == 1)
            break;
        vst1q_lane_u64((uint64_t *)(void *)(to + stride), vreinterpretq_u64_u8(codes), 1);
    }
}

/* Two 64-bit products p -> p / 2^n, half to even; `n` is negative, as NEON shifts to the left. */
static inline int64x2_t mps_even_quotient(int64x2_t p, int64x2_t n) {
    const int64x2_t one = vdupq_n_s64(1);
    const int64x2_t half = vsubq_s64(vshlq_s64(one, vsubq_s64(vnegq_s64(n), one)), one);
    const int64x2_t bit = vandq_s64(vshlq_s64(p, n), one);
    return vshlq_s64(vaddq_s64(vaddq_s64(p, half), bit), n);
}

/* The general way for 8 sums of 32 bits, to 32-bit codes. */
static inline void mps_exact(const mps_constants *c, int raise, int32_t zero, int32_t low,
                             int32_t high, const int32_t *sums, int32_t *codes) {
    for (int i = 0; i < MPS_TILE; i += 4) {
        const int32x4_t x = vaddq_s32(vld1q_s32(sums + i), vld1q_s32(c->base + i));
        const int32x4_t m = vld1q_s32(c->multiplier + i),
                        n = vsubq_s32(vdupq_n_s32(raise), vld1q_s32(c->shift + i));
        const int64x2_t a = mps_even_quotient(vmull_s32(vget_low_s32(x), vget_low_s32(m)),
                                              vmovl_s32(vget_low_s32(n)));
        const int64x2_t b = mps_even_quotient(vmull_high_s32(x, m), vmovl_high_s32(n));
        int32x4_t q = vqmovn_high_s64(vqmovn_s64(a), b);
        q = vqaddq_s32(q, vdupq_n_s32(zero));
        vst1q_s32(codes + i, vminq_s32(vmaxq_s32(q, vdupq_n_s32(low)), vdupq_n_s32(high)));
    }
}

/* Two rows of 8 codes of 4 bits, a byte each -> 4 bytes each. */
static inline void mps_pack_two(const unsigned char *codes, unsigned char *to,
                                unsigned char *then) {
    const uint16x8_t pairs = vreinterpretq_u16_u8(vld1q_u8(codes));
    const uint8x8_t packed = vmovn_u16(vorrq_u16(pairs, vshrq_n_u16(pairs, 4)));
    vst1_lane_u32((uint32_t *)(void *)to, vreinterpret_u32_u8(packed), 0);
    vst1_lane_u32((uint32_t *)(void *)then, vreinterpret_u32_u8(packed), 1);
}
#define MPS_PACK_TWO mps_pack_two

/* mps_exact where no product is a tie: two products of 31 bits less to round. */
static inline void mps_near(const mps_layer *layer, const mps_vectors *v, const int32_t *sums,
                            int32_t *codes) {
    const int32x4_t raise = vdupq_n_s32(layer->raise), zero = vdupq_n_s32(layer->output_zero);
    const int32x4_t low = vdupq_n_s32(layer->low), high = vdupq_n_s32(layer->high);
    for (int i = 0; i < 2; i++) {
        int32x4_t x = vshlq_s32(vaddq_s32(vld1q_s32(sums + 4 * i), v->base[i]), raise);
        x = vrshlq_s32(vqdmulhq_s32(x, v->multiplier[i]), v->shift[i]);
        vst1q_s32(codes + 4 * i, vminq_s32(vmaxq_s32(vaddq_s32(x, zero), low), high));
    }
}

/* mps_add_up for 8 results. */
static inline void mps_add_tile(const mps_sum *sum, const int32_t *addends, int32_t *results) {
    const int64x2_t offset = vdupq_n_s64(sum->offset * (INT64_C(1) << sum->raise));
    const int64x2_t n = vdupq_n_s64(-sum->shift);
    const int32x4_t m = vdupq_n_s32(sum->multiplier), o = vdupq_n_s32(sum->other);
    for (int i = 0; i < MPS_TILE; i += 4) {
        const int32x4_t a = vld1q_s32(results + i), b = vld1q_s32(addends + i);
        int64x2_t first = vmlal_s32(offset, vget_low_s32(a), vget_low_s32(m));
        int64x2_t second = vmlal_high_s32(offset, a, m);
        int32x4_t q;
        first = mps_even_quotient(vmlal_s32(first, vget_low_s32(b), vget_low_s32(o)), n);
        second = mps_even_quotient(vmlal_high_s32(second, b, o), n);
        q = vqaddq_s32(vqmovn_high_s64(vqmovn_s64(first), second), vdupq_n_s32(sum->output_zero));
        vst1q_s32(results + i,
                  vminq_s32(vmaxq_s32(q, vdupq_n_s32(sum->low)), vdupq_n_s32(sum->high)));
    }
}
