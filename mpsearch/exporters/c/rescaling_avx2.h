/* rescaling.h with AVX2, and its masks where the processor has AVX-512. */
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
