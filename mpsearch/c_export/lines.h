/* line[i] += weight * (codes[i] - zero): what a depthwise convolution does along a row. Eight places
   at a time with AVX2 and NEON; the rest, and all of it elsewhere, in plain C. */
#include <stdint.h>

#if defined(__AVX2__) && !defined(MPS_PORTABLE)
#include <immintrin.h>

static inline int add_eights(int32_t *line, const unsigned char *codes, int32_t weight,
                             int32_t zero, int count) {
    const __m256i weights = _mm256_set1_epi32(weight), zeros = _mm256_set1_epi32(zero);
    int i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256i *place = (__m256i *)(void *)(line + i);
        const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(codes + i));
        const __m256i centred = _mm256_sub_epi32(_mm256_cvtepu8_epi32(bytes), zeros);
        _mm256_storeu_si256(place, _mm256_add_epi32(_mm256_loadu_si256(place),
                                                    _mm256_mullo_epi32(weights, centred)));
    }
    return i;
}

#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(MPS_PORTABLE)
#include <arm_neon.h>

static inline int add_eights(int32_t *line, const unsigned char *codes, int32_t weight,
                             int32_t zero, int count) {
    const int16x8_t zeros = vdupq_n_s16((int16_t)zero);
    int i = 0;
    for (; i + 8 <= count; i += 8) {
        const int16x8_t wide = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(codes + i)));
        const int16x8_t centred = vsubq_s16(wide, zeros);
        vst1q_s32(line + i,
                  vmlal_n_s16(vld1q_s32(line + i), vget_low_s16(centred), (int16_t)weight));
        vst1q_s32(line + i + 4,
                  vmlal_n_s16(vld1q_s32(line + i + 4), vget_high_s16(centred), (int16_t)weight));
    }
    return i;
}

#else

static inline int add_eights(int32_t *line, const unsigned char *codes, int32_t weight,
                             int32_t zero, int count) {
    (void)line, (void)codes, (void)weight, (void)zero, (void)count;
    return 0;
}

#endif
