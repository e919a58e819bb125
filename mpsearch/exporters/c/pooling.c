/* Pooling of images that are stored channels last. */
#include "kernels.h"

/* The part of a window that lies in the image: rows and columns, apart in bytes; then the first. */
typedef struct {
    int rows, columns;
    size_t below, beside;
    const unsigned char *first;
} seen;

#if defined(__AVX2__) && !defined(MPS_PORTABLE)
#include <immintrin.h>

/* The largest codes of 32 channels each time; how many channels were done. */
static int largest(const seen *w, int count, unsigned char *best) {
    int i = 0;
    for (; i + 32 <= count; i += 32) {
        __m256i most = _mm256_setzero_si256();
        const unsigned char *row = w->first + i;
        for (int y = 0; y < w->rows; y++, row += w->below)
            for (int x = 0; x < w->columns; x++)
                most = _mm256_max_epu8(
                    most, _mm256_loadu_si256(
                              (const __m256i *)(const void *)(row + (size_t)x * w->beside)));
        _mm256_storeu_si256((__m256i *)(void *)(best + i), most);
    }
    return i;
}

#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(MPS_PORTABLE)
#include <arm_neon.h>

/* The largest codes of 16 channels each time; how many channels were done. */
static int largest(const seen *w, int count, unsigned char *best) {
    int i = 0;
    for (; i + 16 <= count; i += 16) {
        const unsigned char *row = w->first + i, *next = row + w->below;
        uint8x16_t most;
        if (w->rows == 2 && w->columns == 2) { /* the usual window */
            most = vmaxq_u8(vld1q_u8(row), vld1q_u8(row + w->beside));
            most = vmaxq_u8(most, vmaxq_u8(vld1q_u8(next), vld1q_u8(next + w->beside)));
        } else {
            most = vdupq_n_u8(0);
            for (int y = 0; y < w->rows; y++, row += w->below)
                for (int x = 0; x < w->columns; x++)
                    most = vmaxq_u8(most, vld1q_u8(row + (size_t)x * w->beside));
        }
        vst1q_u8(best + i, most);
    }
    return i;
}

#elif defined(__ARM_FEATURE_MVE) && !defined(MPS_PORTABLE)
#include <arm_mve.h>

/* The largest codes of all channels, 16 at a time. */
static int largest(const seen *w, int count, unsigned char *best) {
    const unsigned char *row = w->first;
    for (int y = 0; y < w->rows; y++, row += w->below) {
        const unsigned char *place = row;
        for (int x = 0; x < w->columns; x++, place += w->beside) {
            const unsigned char *from = place, *so_far = y + x ? best : place;
            unsigned char *to = best;
            __asm__ volatile("wlstp.8 lr, %[count], 2f\n"
                             "1: vldrb.8 q0, [%[from]], #16\n"
                             "vldrb.8 q1, [%[so_far]], #16\n"
                             "vmax.u8 q0, q0, q1\n"
                             "vstrb.8 q0, [%[to]], #16\n"
                             "letp lr, 1b\n"
                             "2:"
                             : [from] "+r"(from), [so_far] "+r"(so_far), [to] "+r"(to)
                             : [count] "r"(count)
                             : "lr", "q0", "q1", "memory");
        }
    }
    return count;
}

#else

static int largest(const seen *w, int count, unsigned char *best) {
    for (int i = 0; i < count; i++)
        best[i] = w->first[i];
    for (int y = 0; y < w->rows; y++) {
        for (int x = 0; x < w->columns; x++) {
            const unsigned char *codes = w->first + (size_t)y * w->below + (size_t)x * w->beside;
            for (int i = 0; i < count; i++)
                if (codes[i] > best[i])
                    best[i] = codes[i];
        }
    }
    return count;
}

#endif

/* The same for bytes of packed codes, each among bits of its own: `mask` leaves the lowest. */
#if defined(__AVX2__) && !defined(MPS_PORTABLE)
static int largest_packed(const seen *w, int mask, int bits, int count, unsigned char *best) {
    int i = 0;
    for (; i + 16 <= count; i += 16) {
        __m128i all = _mm_setzero_si128();
        for (int kept = mask; kept < 256; kept <<= bits) {
            const __m128i one = _mm_set1_epi8((char)kept);
            __m128i most = _mm_setzero_si128();
            const unsigned char *row = w->first + i;
            for (int y = 0; y < w->rows; y++, row += w->below)
                for (int x = 0; x < w->columns; x++)
                    most = _mm_max_epu8(
                        most,
                        _mm_and_si128(
                            one, _mm_loadu_si128((
                                     const __m128i *)(const void *)(row + (size_t)x * w->beside))));
            all = _mm_or_si128(all, most);
        }
        _mm_storeu_si128((__m128i *)(void *)(best + i), all);
    }
    return i;
}

#elif (defined(__ARM_NEON) && defined(__aarch64__) || defined(__ARM_FEATURE_MVE)) && \
    !defined(MPS_PORTABLE)
static int largest_packed(const seen *w, int mask, int bits, int count, unsigned char *best) {
    int i = 0;
    for (; i + 16 <= count; i += 16) {
        uint8x16_t all = vdupq_n_u8(0);
        for (int kept = mask; kept < 256; kept <<= bits) {
            const uint8x16_t one = vdupq_n_u8((uint8_t)kept);
            const unsigned char *row = w->first + i;
            uint8x16_t most = vdupq_n_u8(0);
            for (int y = 0; y < w->rows; y++, row += w->below)
                for (int x = 0; x < w->columns; x++)
                    most = vmaxq_u8(most, vandq_u8(one, vld1q_u8(row + (size_t)x * w->beside)));
            all = vorrq_u8(all, most);
        }
        vst1q_u8(best + i, all);
    }
    return i;
}

#else

static int largest_packed(const seen *w, int mask, int bits, int count, unsigned char *best) {
    (void)w, (void)mask, (void)bits, (void)count, (void)best;
    return 0;
}

#endif

/* The largest codes of `count` bytes: codes compare as they lie. */
static void largest_of_packed(const seen *w, mps_type type, int count, unsigned char *best) {
    const int bits = type == MPS_U4 ? 4 : 2, mask = (1 << bits) - 1;
    for (int i = largest_packed(w, mask, bits, count, best); i < count; i++) {
        int all = 0;
        for (int kept = mask; kept < 256; kept <<= bits) {
            const unsigned char *row = w->first + i;
            int most = 0;
            for (int y = 0; y < w->rows; y++, row += w->below) {
                for (int x = 0; x < w->columns; x++) {
                    const int code = row[(size_t)x * w->beside] & kept;
                    most = code > most ? code : most;
                }
            }
            all |= most;
        }
        best[i] = (unsigned char)all;
    }
}

/* How many of `count` taps, `dilation` apart from `start` on, lie before `length`. */
static int taps_before(int start, int dilation, int count, int length) {
    const int before = start >= length ? 0 : (length - start + dilation - 1) / dilation;
    return before < count ? before : count;
}

void mps_max_pool(const mps_max_pooling *s, const void *input, void *output) {
    const size_t place = mps_bytes_of(s->type, (size_t)s->channels); /* whole bytes */
    unsigned char *best = output;
    for (int y = 0; y < s->output_height; y++) {
        const int top = y * s->stride_y - s->top;
        const int first_row = top < 0 ? taps_before(top, s->dilation_y, s->kernel_height, 0) : 0;
        const int rows = taps_before(top, s->dilation_y, s->kernel_height, s->height) - first_row;
        for (int x = 0; x < s->output_width; x++, best += place) {
            const int left = x * s->stride_x - s->left;
            const int first = left < 0 ? taps_before(left, s->dilation_x, s->kernel_width, 0) : 0;
            seen w;
            int i = 0;
            w.rows = rows;
            w.columns = s->width - left >= s->kernel_width * s->dilation_x /* without dividing */
                            ? s->kernel_width - first
                            : taps_before(left, s->dilation_x, s->kernel_width, s->width) - first;
            if (w.rows <= 0 || w.columns <= 0) { /* what is padded never wins */
                for (; i < s->channels; i++)
                    mps_set(best, s->type, (size_t)i, s->lowest);
                continue;
            }
            w.beside = (size_t)s->dilation_x * place;
            w.below = (size_t)s->dilation_y * (size_t)s->width * place;
            w.first = (const unsigned char *)input +
                      ((size_t)(top + first_row * s->dilation_y) * (size_t)s->width +
                       (size_t)(left + first * s->dilation_x)) *
                          place;
            if (mps_is_packed(s->type)) {
                largest_of_packed(&w, s->type, (int)place, best);
                continue;
            }
            if (s->type == MPS_U8)
                i = largest(&w, s->channels, best);
            for (; i < s->channels; i++) {
                int32_t most = s->lowest;
                for (int ky = 0; ky < w.rows; ky++) {
                    for (int kx = 0; kx < w.columns; kx++) {
                        const int32_t code =
                            mps_get(w.first + (size_t)ky * w.below + (size_t)kx * w.beside, s->type,
                                    (size_t)i);
                        if (code > most)
                            most = code;
                    }
                }
                mps_set(best, s->type, (size_t)i, most);
            }
        }
    }
}

void mps_average_pool(const mps_average_pooling *s, const void *input, void *output) {
    const size_t channels = (size_t)s->channels;
    size_t at = 0;
    for (int y = 0; y < s->output_height; y++) {
        for (int x = 0; x < s->output_width; x++) {
            const size_t place = (size_t)y * (size_t)s->output_width + (size_t)x;
            const int64_t taken = (int64_t)(s->rows[2 * y + 1] - s->rows[2 * y]) *
                                  (s->columns[2 * x + 1] - s->columns[2 * x]);
            for (size_t channel = 0; channel < channels; channel++) {
                int64_t sum = 0;
                for (int32_t sy = s->rows[2 * y]; sy < s->rows[2 * y + 1]; sy++)
                    for (int32_t sx = s->columns[2 * x]; sx < s->columns[2 * x + 1]; sx++)
                        sum += mps_get(input, s->type,
                                       ((size_t)sy * (size_t)s->width + (size_t)sx) * channels +
                                           channel);
                mps_set(output, s->output_type, at++,
                        s->counts != NULL ? (int32_t)mps_divide_round(sum, s->counts[place])
                                          : mps_scaled_mean(&s->scaling, sum, taken, place));
            }
        }
    }
}

#define WHOLE 32768 /* both weights of an axis together */

void mps_resize(const mps_resizing *s, const void *input, void *output) {
    const size_t channels = (size_t)s->channels;
    size_t at = 0;
    for (int y = 0; y < s->output_height; y++) {
        const int32_t *row = s->rows + 3 * y;
        const size_t above = (size_t)row[0] * (size_t)s->width;
        const size_t below = (size_t)row[1] * (size_t)s->width;
        for (int x = 0; x < s->output_width; x++) {
            const int32_t *column = s->columns + 3 * x;
            const size_t left = (size_t)column[0], right = (size_t)column[1];
            const int64_t first = WHOLE - column[2], second = column[2];
            for (size_t i = 0; i < channels; i++) {
                const int64_t upper =
                    first * mps_get(input, s->type, (above + left) * channels + i) +
                    second * mps_get(input, s->type, (above + right) * channels + i);
                const int64_t lower =
                    first * mps_get(input, s->type, (below + left) * channels + i) +
                    second * mps_get(input, s->type, (below + right) * channels + i);
                const int64_t sum = (WHOLE - row[2]) * upper + row[2] * lower;
                mps_set(output, s->type, at++, (int32_t)mps_shift_round(sum, 30));
            }
        }
    }
}
