/* Sums of 8 channels -> codes: + base, * multiplier / 2^shift, + zero point, clip. Three ways to
   the same integers: AVX2, NEON, and plain C.

   Half to even equals half up where no product is a tie, which the export proves for MPS_HALF_UP.
   Half up needs the upper halves of products only, for floors nest: with x * m = p
     floor(p / 2^n + 1/2) = floor((floor(p / 2^a) + 2^(n-a-1)) / 2^(n-a)),  a < n.
   Where n is too small for that, x and 2^n are multiplied by 2^raise before. */
#ifndef MPS_RESCALING_H
#define MPS_RESCALING_H

#include "constants.h"

#define MPS_ROWS 16 /* that are packed at once, a multiple of 4 */

/* Codes of up to a byte without ties: what kernels finish in registers, as bytes. */
static inline int mps_to_bytes(const mps_layer *layer) {
    return layer->rounding == MPS_HALF_UP &&
           (layer->output_type == MPS_U8 || mps_is_packed(layer->output_type));
}

/* Whether these codes need more than the range of their type. */
static inline int mps_raised_or_clipped(const mps_layer *layer) {
    return layer->low != 0 || layer->high != 255 || layer->raise != 0;
}

#if defined(__AVX2__) && !defined(MPS_PORTABLE)
#include <immintrin.h>

typedef struct {
    __m256i base, even, odd, shift, half;
} mps_vectors;

static inline __m256i mps_load(const int32_t *x) {
    return _mm256_loadu_si256((const __m256i *)(const void *)x);
}

static inline mps_vectors mps_vectors_of(const mps_constants *c) {
    mps_vectors v;
    v.base = mps_load(c->base);
    v.even = mps_load(c->multiplier);
    v.odd = _mm256_srli_epi64(v.even, 32);
    v.shift = _mm256_sub_epi32(mps_load(c->shift), _mm256_set1_epi32(32));
    v.half = _mm256_sllv_epi32(_mm256_set1_epi32(1), /* 2^(n-33) */
                               _mm256_sub_epi32(v.shift, _mm256_set1_epi32(1)));
    return v;
}

/* a = 32: the upper half of a 64-bit product; shift >= 33 */
static inline MPS_INLINE __m256i mps_rescaled(const mps_vectors *v, int raise, __m256i x) {
    __m256i even, odd, upper;
    if (raise)
        x = _mm256_slli_epi32(x, raise);
    even = _mm256_mul_epi32(x, v->even);
    odd = _mm256_mul_epi32(_mm256_srli_epi64(x, 32), v->odd);
#ifdef __AVX512VL__
    upper = _mm256_mask_shuffle_epi32(odd, 0x55, even, _MM_PERM_DDBB);
#else
    upper = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
#endif
    return _mm256_srav_epi32(_mm256_add_epi32(upper, v->half), v->shift);
}

static inline __m256i mps_half_up(const mps_vectors *v, int raise, const int32_t *sums) {
    return mps_rescaled(v, raise, _mm256_add_epi32(mps_load(sums), v->base));
}

/* Four rows of 8 sums with their base -> 8 codes of one byte each, clipped where `clip` says that
   the byte's range is not enough; `rows` of them, 1 to 4, are stored. `clip` and a `raise` of 0 are
   constants. */
static inline MPS_INLINE void mps_four_rows(const mps_layer *layer, const mps_vectors *v, int clip,
                                            int raise, const __m256i *sums, int rows,
                                            unsigned char *to, size_t stride) {
    const __m256i zero = _mm256_set1_epi16((short)layer->output_zero);
    const __m256i a =
        _mm256_packs_epi32(mps_rescaled(v, raise, sums[0]), mps_rescaled(v, raise, sums[1]));
    const __m256i b =
        _mm256_packs_epi32(mps_rescaled(v, raise, sums[2]), mps_rescaled(v, raise, sums[3]));
    __m256i codes = _mm256_packus_epi16(_mm256_adds_epi16(a, zero), _mm256_adds_epi16(b, zero));
    __m128i lower, upper, half;
    if (clip)
        codes = _mm256_min_epu8(_mm256_max_epu8(codes, _mm256_set1_epi8((char)layer->low)),
                                _mm256_set1_epi8((char)layer->high));
    lower = _mm256_castsi256_si128(codes);
    upper = _mm256_extracti128_si256(codes, 1);
    half = _mm_unpacklo_epi32(lower, upper);
    _mm_storel_epi64((__m128i *)(void *)to, half);
    if (rows > 1)
        _mm_storel_epi64((__m128i *)(void *)(to + stride), _mm_srli_si128(half, 8));
    half = _mm_unpackhi_epi32(lower, upper);
    if (rows > 2)
        _mm_storel_epi64((__m128i *)(void *)(to + 2 * stride), half);
    if (rows > 3)
        _mm_storel_epi64((__m128i *)(void *)(to + 3 * stride), _mm_srli_si128(half, 8));
}

/* Rows of 8 sums, which are there up to a multiple of four rows, to codes. */
static inline void mps_bytes(const mps_layer *layer, const mps_vectors *v, int clip, int raise,
                             const int32_t *sums, int rows, unsigned char *to, size_t stride) {
    for (; rows > 0; rows -= 4, sums += 4 * MPS_TILE, to += 4 * stride) {
        __m256i x[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            x[i] = _mm256_add_epi32(mps_load(sums + i * MPS_TILE), v->base);
        mps_four_rows(layer, v, clip, raise, x, rows, to, stride);
    }
}

/* Four 64-bit products p -> p / 2^n, half to even, clipped. A logical shift of p + 2^62, which is
   not negative, stands for the arithmetic one. */
static inline __m256i mps_even_quotient(__m256i p, __m256i n, __m256i low, __m256i high) {
    const __m256i one = _mm256_set1_epi64x(1), lift = _mm256_set1_epi64x(INT64_C(1) << 62);
    const __m256i lifted = _mm256_srlv_epi64(lift, n);
    const __m256i half = _mm256_sub_epi64(_mm256_sllv_epi64(one, _mm256_sub_epi64(n, one)), one);
    const __m256i raised = _mm256_add_epi64(p, lift);
    const __m256i bit =
        _mm256_and_si256(_mm256_sub_epi64(_mm256_srlv_epi64(raised, n), lifted), one);
    __m256i q = _mm256_add_epi64(_mm256_add_epi64(raised, half), bit);
    q = _mm256_sub_epi64(_mm256_srlv_epi64(q, n), lifted);
    q = _mm256_blendv_epi8(q, low, _mm256_cmpgt_epi64(low, q));
    return _mm256_blendv_epi8(q, high, _mm256_cmpgt_epi64(q, high));
}

/* The general way for 8 sums of 32 bits, to 32-bit codes. */
static inline void mps_exact(const mps_constants *c, int raise, int32_t zero, int32_t low,
                             int32_t high, const int32_t *sums, int32_t *codes) {
    const __m256i x = _mm256_add_epi32(mps_load(sums), mps_load(c->base));
    const __m256i m = mps_load(c->multiplier);
    const __m256i n = _mm256_sub_epi32(mps_load(c->shift), _mm256_set1_epi32(raise));
    const __m256i lowest = _mm256_set1_epi64x((int64_t)low - zero);
    const __m256i highest = _mm256_set1_epi64x((int64_t)high - zero);
    const __m256i mask = _mm256_set1_epi64x(0xffffffff);
    const __m256i even =
        mps_even_quotient(_mm256_mul_epi32(x, m), _mm256_and_si256(n, mask), lowest, highest);
    const __m256i odd =
        mps_even_quotient(_mm256_mul_epi32(_mm256_srli_epi64(x, 32), _mm256_srli_epi64(m, 32)),
                          _mm256_srli_epi64(n, 32), lowest, highest);
    const __m256i both = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
    _mm256_storeu_si256((__m256i *)(void *)codes, _mm256_add_epi32(both, _mm256_set1_epi32(zero)));
}

/* Two rows of 8 codes of 4 bits, a byte each -> 4 bytes each. */
static inline void mps_pack_two(const unsigned char *codes, unsigned char *to,
                                unsigned char *then) {
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)codes);
    const __m128i pairs = _mm_maddubs_epi16(bytes, _mm_set1_epi16(0x1001)); /* even + 16 odd */
    const __m128i packed = _mm_packus_epi16(pairs, pairs);
    const int32_t first = _mm_cvtsi128_si32(packed), second = _mm_extract_epi32(packed, 1);
    memcpy(to, &first, 4);
    memcpy(then, &second, 4);
}
#define MPS_PACK_TWO mps_pack_two

/* mps_exact where no product is a tie: two products of 31 bits less to round. */
static inline void mps_near(const mps_layer *layer, const mps_vectors *v, const int32_t *sums,
                            int32_t *codes) {
    __m256i x = mps_half_up(v, layer->raise, sums);
    x = _mm256_add_epi32(x, _mm256_set1_epi32(layer->output_zero));
    x = _mm256_max_epi32(x, _mm256_set1_epi32(layer->low));
    x = _mm256_min_epi32(x, _mm256_set1_epi32(layer->high));
    _mm256_storeu_si256((__m256i *)(void *)codes, x);
}

/* mps_add_up for 8 results. */
static inline void mps_add_tile(const mps_sum *sum, const int32_t *addends, int32_t *results) {
    const __m256i m = _mm256_set1_epi32(sum->multiplier), o = _mm256_set1_epi32(sum->other);
    const __m256i offset = _mm256_set1_epi64x(sum->offset * (INT64_C(1) << sum->raise));
    const __m256i n = _mm256_set1_epi64x(sum->shift);
    const __m256i lowest = _mm256_set1_epi64x((int64_t)sum->low - sum->output_zero);
    const __m256i highest = _mm256_set1_epi64x((int64_t)sum->high - sum->output_zero);
    const __m256i a = mps_load(results), b = mps_load(addends);
    __m256i even = _mm256_add_epi64(_mm256_mul_epi32(a, m), _mm256_mul_epi32(b, o));
    __m256i odd = _mm256_add_epi64(_mm256_mul_epi32(_mm256_srli_epi64(a, 32), m),
                                   _mm256_mul_epi32(_mm256_srli_epi64(b, 32), o));
    even = mps_even_quotient(_mm256_add_epi64(even, offset), n, lowest, highest);
    odd = mps_even_quotient(_mm256_add_epi64(odd, offset), n, lowest, highest);
    even = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
    _mm256_storeu_si256((__m256i *)(void *)results,
                        _mm256_add_epi32(even, _mm256_set1_epi32(sum->output_zero)));
}

#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(MPS_PORTABLE)
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

#else

typedef struct {
    const mps_constants *constants;
} mps_vectors;

static inline mps_vectors mps_vectors_of(const mps_constants *c) {
    const mps_vectors v = {c};
    return v;
}

static inline void mps_exact(const mps_constants *c, int raise, int32_t zero, int32_t low,
                             int32_t high, const int32_t *sums, int32_t *codes) {
    for (int i = 0; i < MPS_TILE; i++) {
        const int64_t x = (int64_t)sums[i] + c->base[i];
        codes[i] =
            mps_clip(mps_rescale(x, c->multiplier[i], c->shift[i] - raise, 0) + zero, low, high);
    }
}

static inline void mps_bytes(const mps_layer *layer, const mps_vectors *v, int clip, int raise,
                             const int32_t *sums, int rows, unsigned char *to, size_t stride) {
    (void)clip, (void)raise; /* the constants have it */
    for (; rows > 0; rows--, sums += MPS_TILE, to += stride) {
        for (int i = 0; i < MPS_TILE; i++) {
            const mps_constants *c = v->constants;
            const int64_t x = ((int64_t)sums[i] + c->base[i]) * c->multiplier[i];
            const int n = c->shift[i] - layer->raise;
            to[i] = (unsigned char)mps_clip(
                ((x + (INT64_C(1) << (n - 1))) >> n) + layer->output_zero, layer->low, layer->high);
        }
    }
}

static inline void mps_near(const mps_layer *layer, const mps_vectors *v, const int32_t *sums,
                            int32_t *codes) {
    mps_exact(v->constants, layer->raise, layer->output_zero, layer->low, layer->high, sums, codes);
}

static inline void mps_add_tile(const mps_sum *sum, const int32_t *addends, int32_t *results) {
    for (int i = 0; i < MPS_TILE; i++)
        results[i] = mps_add_up(sum, results[i], addends[i]);
}

#endif

/* Elements at ... at + count - 1, count <= MPS_TILE; the others are 0. */
static inline void mps_read_tile(const void *data, mps_type type, size_t at, int count,
                                 int32_t *codes) {
    const unsigned char *bytes = (const unsigned char *)data + at;
    if (type == MPS_U8 && count == MPS_TILE) {
        for (int i = 0; i < MPS_TILE; i++)
            codes[i] = bytes[i];
        return;
    }
    for (int i = 0; i < MPS_TILE; i++)
        codes[i] = i < count ? mps_get(data, type, at + (size_t)i) : 0;
}

/* 8 codes of a byte each -> one after the other in 4 or 2 bytes. */
static inline void mps_pack_tile(const unsigned char *codes, mps_type type, unsigned char *to) {
    unsigned char four[4];
    const int up = type == MPS_U4 ? 4 : 2;
    for (int i = 0; i < 4; i++)
        four[i] = (unsigned char)(codes[2 * i] | codes[2 * i + 1] << up);
    if (type == MPS_U4) {
        memcpy(to, four, 4);
        return;
    }
    to[0] = (unsigned char)(four[0] | four[1] << 4);
    to[1] = (unsigned char)(four[2] | four[3] << 4);
}

/* Rows of 8 codes of a byte each, one after the other -> packed rows, which begin a byte. */
static inline void mps_pack_rows(const unsigned char *codes, int rows, mps_type type, void *output,
                                 size_t at, size_t stride) {
    const size_t in_a_byte = (size_t)mps_in_a_byte(type), apart = stride / in_a_byte;
    unsigned char *to = (unsigned char *)output + at / in_a_byte;
#ifdef MPS_PACK_TWO
    if (type == MPS_U4)
        for (; rows > 1; rows -= 2, codes += 2 * MPS_TILE, to += 2 * apart)
            MPS_PACK_TWO(codes, to, to + apart);
#endif
    for (; rows > 0; rows--, codes += MPS_TILE, to += apart)
        mps_pack_tile(codes, type, to);
}

/* True where each row of 8 channels begins a byte. */
static inline int mps_rows_are_whole(mps_type type, size_t at, size_t stride) {
    const size_t in_a_byte = (size_t)mps_in_a_byte(type);
    return at % in_a_byte == 0 && stride % in_a_byte == 0;
}

static inline void mps_write_tile(const int32_t *codes, void *data, mps_type type, size_t at,
                                  int count) {
    unsigned char *bytes = (unsigned char *)data + at, row[MPS_TILE];
    if (type == MPS_U8 && count == MPS_TILE)
        for (int i = 0; i < MPS_TILE; i++)
            bytes[i] = (unsigned char)codes[i];
    else if (count == MPS_TILE && mps_is_packed(type) && mps_rows_are_whole(type, at, 0)) {
        for (int i = 0; i < MPS_TILE; i++)
            row[i] = (unsigned char)codes[i];
        mps_pack_tile(row, type, (unsigned char *)data + at / (size_t)mps_in_a_byte(type));
    } else if (type == MPS_I32)
        memcpy((unsigned char *)data + 4 * at, codes, 4 * (size_t)count);
    else
        for (int i = 0; i < count; i++)
            mps_set(data, type, at + (size_t)i, codes[i]);
}

/* `rows` rows of 8 sums -> the codes of `count` channels, from element `at` of the output on and
   every `stride` elements; the layer's sum takes the addend's elements at the same places. There
   is room for sums up to a multiple of four rows. */
static inline void mps_finish_rows(const mps_layer *layer, const mps_constants *constants,
                                   const int32_t *sums, int rows, int count, const void *addend,
                                   void *output, size_t at, size_t stride) {
    const mps_vectors vectors = mps_vectors_of(constants);
    const mps_type type = mps_stored_type(layer);
    const int is_near = layer->rounding == MPS_HALF_UP;
    const int is_raw = layer->sum == NULL && is_near && count == MPS_TILE; /* a byte each */
    int32_t codes[MPS_TILE], addends[MPS_TILE];
    if (is_raw && type == MPS_U8) {
        unsigned char *to = (unsigned char *)output + at;
        if (layer->raise == 0 && layer->low == 0 && layer->high == 255)
            mps_bytes(layer, &vectors, 0, 0, sums, rows, to, stride);
        else
            mps_bytes(layer, &vectors, 1, layer->raise, sums, rows, to, stride);
        return;
    }
    if (is_raw && mps_is_packed(type) && mps_rows_are_whole(type, at, stride)) {
        unsigned char bytes[MPS_ROWS * MPS_TILE];
        for (; rows > 0; rows -= MPS_ROWS, sums += MPS_ROWS * MPS_TILE) {
            const int some = rows < MPS_ROWS ? rows : MPS_ROWS;
            mps_bytes(layer, &vectors, 1, layer->raise, sums, some, bytes, MPS_TILE);
            mps_pack_rows(bytes, some, type, output, at, stride);
            at += MPS_ROWS * stride;
        }
        return;
    }
    for (int row = 0; row < rows; row++, sums += MPS_TILE, at += stride) {
        if (is_near)
            mps_near(layer, &vectors, sums, codes);
        else
            mps_exact(constants, layer->raise, layer->output_zero, layer->low, layer->high, sums,
                      codes);
        if (layer->sum) {
            mps_read_tile(addend, layer->sum->addend_type, at, count, addends);
            mps_add_tile(layer->sum, addends, codes);
        }
        mps_write_tile(codes, output, type, at, count);
    }
}

#endif
