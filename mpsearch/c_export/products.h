/* Sums of products of 8-bit integers: `count` is a multiple of 16. Three ways to the same sums,
   chosen when compiling: AVX2, NEON, and plain C where neither is there (or with -DMPS_PORTABLE). */
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
    sums[0] += total_of(a);
    sums[1] += total_of(b);
    sums[2] += total_of(c);
    sums[3] += total_of(d);
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
    sums[0] += vaddvq_s32(a);
    sums[1] += vaddvq_s32(b);
    sums[2] += vaddvq_s32(c);
    sums[3] += vaddvq_s32(d);
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

#endif
