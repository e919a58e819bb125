/* Pooling of images that are stored channels last. */
#include "kernels.h"

#if defined(__AVX2__) && !defined(MPS_PORTABLE)
#include <immintrin.h>

/* best[i] = the larger of best[i] and codes[i], 32 at a time; how many were done */
static int larger(unsigned char *best, const unsigned char *codes, int count) {
    int i = 0;
    for (; i + 32 <= count; i += 32) {
        __m256i *place = (__m256i *)(void *)(best + i);
        const __m256i seen = _mm256_loadu_si256((const __m256i *)(const void *)(codes + i));
        _mm256_storeu_si256(place, _mm256_max_epu8(_mm256_loadu_si256(place), seen));
    }
    return i;
}

#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(MPS_PORTABLE)
#include <arm_neon.h>

static int larger(unsigned char *best, const unsigned char *codes, int count) {
    int i = 0;
    for (; i + 16 <= count; i += 16)
        vst1q_u8(best + i, vmaxq_u8(vld1q_u8(best + i), vld1q_u8(codes + i)));
    return i;
}

#else

static int larger(unsigned char *best, const unsigned char *codes, int count) {
    (void)best, (void)codes, (void)count;
    return 0;
}

#endif

void mps_max_pool(const mps_max_pooling *s, const void *input, void *output) {
    const size_t channels = (size_t)s->channels, size = mps_size(s->type);
    unsigned char *best = output;
    for (int y = 0; y < s->output_height; y++) {
        for (int x = 0; x < s->output_width; x++, best += channels * size) {
            int seen = 0; /* what is padded never wins */
            for (int ky = 0; ky < s->kernel_height; ky++) {
                const int sy = y * s->stride_y + ky * s->dilation_y - s->top;
                if (sy < 0 || sy >= s->height) continue;
                for (int kx = 0; kx < s->kernel_width; kx++) {
                    const int sx = x * s->stride_x + kx * s->dilation_x - s->left;
                    const unsigned char *codes;
                    int i = 0;
                    if (sx < 0 || sx >= s->width) continue;
                    codes = (const unsigned char *)input +
                            ((size_t)sy * (size_t)s->width + (size_t)sx) * channels * size;
                    if (seen++ == 0) {
                        memcpy(best, codes, channels * size);
                        continue;
                    }
                    if (s->type == MPS_U8) {
                        i = larger(best, codes, s->channels);
                        for (; i < s->channels; i++)
                            if (codes[i] > best[i]) best[i] = codes[i];
                    }
                    for (; i < s->channels; i++) {
                        const int32_t code = mps_get(codes, s->type, (size_t)i);
                        if (code > mps_get(best, s->type, (size_t)i))
                            mps_set(best, s->type, (size_t)i, code);
                    }
                }
            }
            for (int i = 0; i < s->channels && seen == 0; i++)
                mps_set(best, s->type, (size_t)i, s->lowest);
        }
    }
}

void mps_average_pool(const mps_average_pooling *s, const void *input, void *output) {
    const size_t channels = (size_t)s->channels;
    size_t at = 0;
    for (int y = 0; y < s->output_height; y++) {
        for (int x = 0; x < s->output_width; x++) {
            const int32_t count = s->counts[y * s->output_width + x];
            for (size_t channel = 0; channel < channels; channel++) {
                int64_t sum = 0;
                for (int32_t sy = s->rows[2 * y]; sy < s->rows[2 * y + 1]; sy++)
                    for (int32_t sx = s->columns[2 * x]; sx < s->columns[2 * x + 1]; sx++)
                        sum += mps_get(input, s->type,
                                       ((size_t)sy * (size_t)s->width + (size_t)sx) * channels +
                                           channel);
                mps_set(output, s->type, at++, (int32_t)mps_divide_round(sum, count));
            }
        }
    }
}
