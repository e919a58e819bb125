/* lines.h with AVX2: the products of two taps are added up in 32 bits. */
#include "lanes_avx2.h"

/* 16 codes - offset to each of `count` places; offset is 128, whose bit is turned, or 0. */
static MPS_APART void mps_copy_places(const unsigned char *codes, size_t step, int offset,
                                      int count, int8_t *to) {
    const __m128i turn = _mm_set1_epi8((char)offset);
    for (; count > 0; count--, codes += step, to += MPS_WIDTH)
        _mm_storeu_si128(
            (__m128i *)(void *)to,
            _mm_xor_si128(_mm_loadu_si128((const __m128i *)(const void *)codes), turn));
}

static inline __m256i mps_wide(const int8_t *x) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)x));
}

/* Weights of two taps each, widened: of the channels of mps_both_tiles. */
static inline MPS_INLINE void mps_paired_taps(const int8_t *w, int count, __m256i *even,
                                              __m256i *odd) {
    for (int t = 0; t < count; t += 2) {
        const __m256i a = mps_wide(w + MPS_WIDTH * t), b = mps_wide(w + MPS_WIDTH * (t + 1));
        even[t / 2] = _mm256_unpacklo_epi16(a, b);
        odd[t / 2] = _mm256_unpackhi_epi16(a, b);
    }
}

/* Two products of 8 bits each are added up in 32 bits: two taps at a time. */
#define MPS_ADD_TAPS(a, b)                                                        \
    for (int t = 0; t < count; t += 2) {                                          \
        const __m256i x = mps_wide(taps[t] + at), y = mps_wide(taps[t + 1] + at); \
        MPS_ADD(a, _mm256_madd_epi16(_mm256_unpacklo_epi16(x, y), even[t / 2]));  \
        MPS_ADD(b, _mm256_madd_epi16(_mm256_unpackhi_epi16(x, y), odd[t / 2]));   \
    }

static void mps_line(int run, const int8_t *w, const int8_t *const *taps, int count, size_t step,
                     size_t at, int positions, int32_t *lower, int32_t *upper) {
    __m256i even[MPS_TAPS / 2], odd[MPS_TAPS / 2];
    (void)run;
    mps_paired_taps(w, count, even, odd);
    for (int p = 0; p < positions; p++, at += step) {
        mps_lanes a = {0}, b = a;
        MPS_ADD_TAPS(a, b)
        _mm256_storeu_si256((__m256i *)(void *)(lower + 8 * p),
                            _mm256_permute2x128_si256(MPS_VECTOR(a), MPS_VECTOR(b), 0x20));
        _mm256_storeu_si256((__m256i *)(void *)(upper + 8 * p),
                            _mm256_permute2x128_si256(MPS_VECTOR(a), MPS_VECTOR(b), 0x31));
    }
}

/* Constants of 16 channels as sums of pairs have them: 0 to 3 and 8 to 11, then the others. */
static inline void mps_both_tiles(const mps_constants *constants, mps_vectors *v) {
    const mps_vectors a = mps_vectors_of(constants), b = mps_vectors_of(constants + 1);
#define MPS_ACROSS(x)                                   \
    v[0].x = _mm256_permute2x128_si256(a.x, b.x, 0x20); \
    v[1].x = _mm256_permute2x128_si256(a.x, b.x, 0x31)
    MPS_ACROSS(base);
    MPS_ACROSS(even);
    MPS_ACROSS(odd);
    MPS_ACROSS(shift);
    MPS_ACROSS(half);
}

/* Their sums with base -> codes of one byte, in the order of the channels. */
static inline MPS_INLINE __m128i mps_sixteen_codes(const mps_layer *layer, const mps_vectors *v,
                                                   int clip, __m256i a, __m256i b) {
    const int raise = clip ? layer->raise : 0;
    const __m256i both =
        _mm256_packs_epi32(mps_rescaled(v, raise, a), mps_rescaled(v + 1, raise, b));
    const __m256i sum = _mm256_adds_epi16(both, _mm256_set1_epi16((short)layer->output_zero));
    __m128i codes = _mm_packus_epi16(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    if (clip)
        codes = _mm_min_epu8(_mm_max_epu8(codes, _mm_set1_epi8((char)layer->low)),
                             _mm_set1_epi8((char)layer->high));
    return codes;
}

static inline MPS_INLINE void mps_taps_to_bytes(const mps_layer *layer,
                                                const mps_constants *constants, int clip,
                                                const int8_t *w, const int8_t *const *taps,
                                                int count, size_t step, int positions,
                                                unsigned char *to, size_t apart) {
    __m256i even[MPS_TAPS / 2], odd[MPS_TAPS / 2];
    mps_vectors v[2];
    mps_both_tiles(constants, v);
    mps_paired_taps(w, count, even, odd);
    for (size_t at = 0; positions > 0; positions--, at += step, to += apart) {
        mps_lanes a = MPS_LANES(v[0].base), b = MPS_LANES(v[1].base);
        MPS_ADD_TAPS(a, b)
        _mm_storeu_si128((__m128i *)(void *)to,
                         mps_sixteen_codes(layer, v, clip, MPS_VECTOR(a), MPS_VECTOR(b)));
    }
}

#ifdef MPS_DOT
#include "lines_vnni.h"
#else
static inline int mps_columns_to_bytes(const mps_layer *layer, const mps_constants *constants,
                                       const int8_t *w, const int8_t *const *taps, int count,
                                       size_t step, int positions, unsigned char *to,
                                       size_t apart) {
    (void)layer, (void)constants, (void)w, (void)taps, (void)count, (void)step, (void)positions;
    (void)to, (void)apart;
    return 0;
}
#endif

/* 0: this layer needs mps_line and mps_finish_rows. */
static MPS_APART int mps_line_to_bytes(const mps_layer *layer, const mps_constants *constants,
                                       const int8_t *w, const int8_t *const *taps, int count,
                                       size_t step, int positions, unsigned char *to,
                                       size_t apart) {
    if (!mps_to_bytes(layer))
        return 0;
    if (mps_columns_to_bytes(layer, constants, w, taps, count, step, positions, to, apart))
        return 1;
    if (mps_raised_or_clipped(layer))
        mps_taps_to_bytes(layer, constants, 1, w, taps, count, step, positions, to, apart);
    else
        mps_taps_to_bytes(layer, constants, 0, w, taps, count, step, positions, to, apart);
    return 1;
}
