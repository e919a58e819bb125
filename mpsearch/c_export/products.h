/* Sums of products of 8-bit integers, `count` of them, a multiple of 16; 4-bit weights. Three ways to the
   same integers, chosen when compiling: AVX2, NEON, and plain C where neither is there (or with -DMPS_PORTABLE). */
#include <stdint.h>

#if defined(__AVX2__) && !defined(MPS_PORTABLE)
#include <immintrin.h>

static inline __m256i widened(const int8_t *x) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)x));
}

static inline int32_t total_of(__m256i x) {
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    return _mm_cvtsi128_si32(half);
}

static int32_t product(const int8_t *w, const int8_t *x, int count) {
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < count; i += 16)
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(widened(w + i), widened(x + i)));
    return total_of(sum);
}

/* sums[p] += the product of w and x + p * stride, for p = 0 to 3 */
static void four_products(const int8_t *w, const int8_t *x, int stride, int count, int32_t *sums) {
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (int i = 0; i < count; i += 16) {
        const __m256i wide = widened(w + i);
        a = _mm256_add_epi32(a, _mm256_madd_epi16(wide, widened(x + i)));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(wide, widened(x + stride + i)));
        c = _mm256_add_epi32(c, _mm256_madd_epi16(wide, widened(x + 2 * stride + i)));
        d = _mm256_add_epi32(d, _mm256_madd_epi16(wide, widened(x + 3 * stride + i)));
    }
    a = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    _mm_storeu_si128((__m128i *)(void *)sums,
                     _mm_add_epi32(_mm_loadu_si128((const __m128i *)(const void *)sums),
                                   _mm_add_epi32(_mm256_castsi256_si128(a),
                                                 _mm256_extracti128_si256(a, 1))));
}

/* 4-bit weights, 32 at a time; how many were unpacked */
static int unpack_4(const uint8_t *packed, int count, int8_t *weights) {
    const __m128i low = _mm_set1_epi8(15), sign = _mm_set1_epi8(8);
    int i = 0;
    for (; i + 32 <= count; i += 32) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(packed + i / 2));
        const __m128i even = _mm_and_si128(bytes, low);
        const __m128i odd = _mm_and_si128(_mm_srli_epi16(bytes, 4), low);
        const __m128i first = _mm_unpacklo_epi8(even, odd), second = _mm_unpackhi_epi8(even, odd);
        _mm_storeu_si128((__m128i *)(void *)(weights + i),
                         _mm_sub_epi8(_mm_xor_si128(first, sign), sign));
        _mm_storeu_si128((__m128i *)(void *)(weights + i + 16),
                         _mm_sub_epi8(_mm_xor_si128(second, sign), sign));
    }
    return i;
}

#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(MPS_PORTABLE)
#include <arm_neon.h>

/* Two products fit 16 bits: |x| <= 128, and |w| <= 127 as the export has checked. */
static inline int32x4_t with_products(int32x4_t sum, int8x16_t w, int8x16_t x) {
    int16x8_t pair = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    pair = vmlal_high_s8(pair, w, x);
    return vpadalq_s16(sum, pair);
}

static int32_t product(const int8_t *w, const int8_t *x, int count) {
    int32x4_t sum = vdupq_n_s32(0);
    for (int i = 0; i < count; i += 16) sum = with_products(sum, vld1q_s8(w + i), vld1q_s8(x + i));
    return vaddvq_s32(sum);
}

/* sums[p] += the product of w and x + p * stride, for p = 0 to 3 */
static void four_products(const int8_t *w, const int8_t *x, int stride, int count, int32_t *sums) {
    int32x4_t a = vdupq_n_s32(0), b = a, c = a, d = a;
    const int8_t *x1 = x + stride, *x2 = x1 + stride, *x3 = x2 + stride;
    for (int i = 0; i < count; i += 16) {
        const int8x16_t weights = vld1q_s8(w + i);
        a = with_products(a, weights, vld1q_s8(x + i));
        b = with_products(b, weights, vld1q_s8(x1 + i));
        c = with_products(c, weights, vld1q_s8(x2 + i));
        d = with_products(d, weights, vld1q_s8(x3 + i));
    }
    a = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
    vst1q_s32(sums, vaddq_s32(vld1q_s32(sums), a));
}

/* 4-bit weights, 32 at a time; how many were unpacked */
static int unpack_4(const uint8_t *packed, int count, int8_t *weights) {
    int i = 0;
    for (; i + 32 <= count; i += 32) {
        const int8x16_t bytes = vreinterpretq_s8_u8(vld1q_u8(packed + i / 2));
        int8x16x2_t both;
        both.val[0] = vshrq_n_s8(vshlq_n_s8(bytes, 4), 4);
        both.val[1] = vshrq_n_s8(bytes, 4);
        vst2q_s8(weights + i, both);
    }
    return i;
}

#else

static int32_t product(const int8_t *w, const int8_t *x, int count) {
    int32_t sum = 0;
    for (int i = 0; i < count; i++) sum += w[i] * x[i];
    return sum;
}

/* sums[p] += the product of w and x + p * stride, for p = 0 to 3 */
static void four_products(const int8_t *w, const int8_t *x, int stride, int count, int32_t *sums) {
    for (int p = 0; p < 4; p++) sums[p] += product(w, x + p * stride, count);
}

/* 4-bit weights; how many were unpacked */
static int unpack_4(const uint8_t *packed, int count, int8_t *weights) {
    int i = 0;
    for (; i + 1 < count; i += 2) {
        weights[i] = (int8_t)((packed[i / 2] & 15) ^ 8) - 8;
        weights[i + 1] = (int8_t)((packed[i / 2] >> 4) ^ 8) - 8;
    }
    return i;
}

#endif
