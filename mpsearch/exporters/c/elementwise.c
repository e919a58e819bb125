/* What works element by element: requantize, clamp, add. Orders of tensors do not matter here. */
#include "rescaling.h"

#define STRETCH 64 /* elements at once, a multiple of 4 * MPS_TILE */

#if defined(__AVX2__) && !defined(MPS_PORTABLE)
#include <immintrin.h>

/* Saturated sums of 32 bits, 8 at a time; how many were made. */
static size_t add_wide(const unsigned char *left, const unsigned char *right, size_t count,
                       int32_t low, int32_t high, unsigned char *to) {
    const __m256i lowest = _mm256_set1_epi32(low), highest = _mm256_set1_epi32(high);
    size_t i = 0;
    for (; i + 8 <= count; i += 8, left += 32, right += 32, to += 32) {
        const __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)left);
        const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)right);
        const __m256i sum = _mm256_add_epi32(a, b);
        /* both have one sign and the sum the other: the largest number of that sign */
        const __m256i over = _mm256_and_si256(_mm256_xor_si256(a, sum), _mm256_xor_si256(b, sum));
        const __m256i end =
            _mm256_xor_si256(_mm256_srai_epi32(a, 31), _mm256_set1_epi32(INT32_MAX));
        const __m256i full = _mm256_blendv_epi8(sum, end, _mm256_srai_epi32(over, 31));
        _mm256_storeu_si256((__m256i *)(void *)to,
                            _mm256_min_epi32(_mm256_max_epi32(full, lowest), highest));
    }
    return i;
}

#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(MPS_PORTABLE)
#include <arm_neon.h>

/* Saturated sums of 32 bits, 4 at a time; how many were made. */
static size_t add_wide(const unsigned char *left, const unsigned char *right, size_t count,
                       int32_t low, int32_t high, unsigned char *to) {
    const int32x4_t lowest = vdupq_n_s32(low), highest = vdupq_n_s32(high);
    size_t i = 0;
    for (; i + 4 <= count; i += 4, left += 16, right += 16, to += 16) {
        const int32x4_t a = vreinterpretq_s32_u8(vld1q_u8(left));
        const int32x4_t b = vreinterpretq_s32_u8(vld1q_u8(right));
        const int32x4_t sum = vminq_s32(vmaxq_s32(vqaddq_s32(a, b), lowest), highest);
        vst1q_u8(to, vreinterpretq_u8_s32(sum));
    }
    return i;
}

#else

static size_t add_wide(const unsigned char *left, const unsigned char *right, size_t count,
                       int32_t low, int32_t high, unsigned char *to) {
    (void)left, (void)right, (void)count, (void)low, (void)high, (void)to;
    return 0;
}

#endif

/* 32-bit sums to bytes as a layer does it, with one factor; how many were done. */
static size_t requantize_wide(const mps_requantization *s, const unsigned char *input,
                              unsigned char *output) {
    mps_layer layer = {0};
    mps_constants constants;
    int32_t sums[STRETCH];
    size_t i = 0;
    if (s->input_type != MPS_I32 || s->rounding != MPS_HALF_UP ||
        (s->output_type != MPS_U8 && !mps_is_packed(s->output_type)))
        return 0;
    layer.output_type = s->output_type, layer.rounding = s->rounding, layer.raise = s->raise;
    layer.output_zero = s->output_zero, layer.low = s->low, layer.high = s->high;
    for (int k = 0; k < MPS_TILE; k++) {
        constants.base[k] = 0;
        constants.multiplier[k] = s->multiplier;
        constants.shift[k] = s->shift + s->raise;
    }
    for (; i + STRETCH <= s->count; i += STRETCH) {
        memcpy(sums, input + 4 * i, sizeof sums);
        mps_finish_rows(&layer, &constants, sums, STRETCH / MPS_TILE, MPS_TILE, NULL, output, i,
                        MPS_TILE);
    }
    return i;
}

static int32_t requantized(const mps_requantization *s, int32_t code) {
    const int64_t scaled = mps_rescale(code - s->input_zero, s->multiplier, s->shift, 0);
    return mps_clip(scaled + s->output_zero, s->low, s->high);
}

/* Many bytes to bytes, by a table of what becomes of each; how many were done. */
static size_t requantize_bytes(const mps_requantization *s, const unsigned char *input,
                               unsigned char *output) {
    const size_t count = s->count;
    unsigned char table[256];
    if (s->input_type != MPS_U8 || s->output_type != MPS_U8 || count < 2 * sizeof table)
        return 0;
    for (int32_t code = 0; code < 256; code++)
        table[code] = (unsigned char)requantized(s, code);
    for (size_t i = 0; i < count; i++)
        output[i] = table[input[i]];
    return count;
}

void mps_requantize(const mps_requantization *s, const void *input, void *output) {
    size_t i = requantize_bytes(s, input, output);
    if (i == 0)
        i = requantize_wide(s, input, output);
    for (; i < s->count; i++)
        mps_set(output, s->output_type, i, requantized(s, mps_get(input, s->input_type, i)));
}

void mps_clamp(const mps_elementwise *s, const void *input, void *output) {
    for (size_t i = 0; i < s->count; i++)
        mps_set(output, s->type, i, mps_clip(mps_get(input, s->type, i), s->low, s->high));
}

void mps_add(const mps_elementwise *s, const void *left, const void *right, void *output) {
    size_t i = 0;
    if (s->type == MPS_I32)
        i = add_wide(left, right, s->count, s->low, s->high, output);
    for (; i < s->count; i++) {
        const int64_t sum = (int64_t)mps_get(left, s->type, i) + mps_get(right, s->type, i);
        mps_set(output, s->type, i, mps_clip(sum, s->low, s->high));
    }
}
