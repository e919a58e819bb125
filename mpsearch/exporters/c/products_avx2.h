/* products.h with AVX2: 8 channels of 4 terms are one or two vectors, four positions at a time. */
#include <immintrin.h>

/* Codes below 128 stay bytes where two products and more fit 16 bits; others become 16 bits. */
static inline int mps_code_bytes(const mps_layer *layer) {
    return layer->run >= 2 && layer->offset == 0 ? 1 : 2;
}

/* Codes - offset as a part of a patch. */
static inline void mps_centre(const mps_layer *layer, const unsigned char *codes, int count,
                              void *patch) {
    int16_t *wide = patch;
    const int16_t offset = (int16_t)layer->offset;
    int i = 0;
    if (mps_code_bytes(layer) == 1) {
        memcpy(patch, codes, (size_t)count);
        return;
    }
    for (; i + 8 <= count; i += 8) {
        const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(codes + i));
        _mm_storeu_si128((__m128i *)(void *)(wide + i),
                         _mm_sub_epi16(_mm_cvtepu8_epi16(bytes), _mm_set1_epi16(offset)));
    }
    if (i < count && count >= 8) {
        const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(codes + count - 8));
        _mm_storeu_si128((__m128i *)(void *)(wide + count - 8),
                         _mm_sub_epi16(_mm_cvtepu8_epi16(bytes), _mm_set1_epi16(offset)));
        return;
    }
    for (; i < count; i++)
        wide[i] = (int16_t)(codes[i] - offset);
}

/* a channel's two sums beside each other -> one */
static inline void mps_store(int32_t *sums, __m256i total, int more) {
    __m256i *to = (__m256i *)(void *)sums;
    if (more)
        total = _mm256_add_epi32(total, _mm256_loadu_si256(to));
    _mm256_storeu_si256(to, total);
}

static inline __m256i mps_pairs(__m256i a, __m256i b) {
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(a, b), 0xd8);
}

static inline __m256i mps_four(const unsigned char *patch) {
    int32_t codes;
    memcpy(&codes, patch, 4);
    return _mm256_set1_epi32(codes);
}

static inline __m256i mps_four_wide(const unsigned char *patch) {
    int64_t codes;
    memcpy(&codes, patch, 8);
    return _mm256_set1_epi64x(codes);
}

/* `run` / 2 sums of two products are added up in 16 bits before they are widened. */
static void mps_byte_products(int run, const int8_t *w, const unsigned char *x, size_t stride,
                              int groups, int32_t *sums, int more) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    const unsigned char *y = x + 2 * stride;
    while (groups > 0) {
        int count = groups < run / 2 ? groups : run / 2;
        __m256i e = _mm256_setzero_si256(), f = e, g = e, h = e;
        groups -= count;
        for (; count > 0; count--, w += 32, x += 4, y += 4) {
            const __m256i weights = _mm256_loadu_si256((const __m256i *)(const void *)w);
            e = _mm256_add_epi16(e, _mm256_maddubs_epi16(mps_four(x), weights));
            f = _mm256_add_epi16(f, _mm256_maddubs_epi16(mps_four(x + stride), weights));
            g = _mm256_add_epi16(g, _mm256_maddubs_epi16(mps_four(y), weights));
            h = _mm256_add_epi16(h, _mm256_maddubs_epi16(mps_four(y + stride), weights));
        }
        a = _mm256_add_epi32(a, _mm256_madd_epi16(e, ones));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(f, ones));
        c = _mm256_add_epi32(c, _mm256_madd_epi16(g, ones));
        d = _mm256_add_epi32(d, _mm256_madd_epi16(h, ones));
    }
    mps_store(sums, a, more);
    mps_store(sums + 8, b, more);
    mps_store(sums + 16, c, more);
    mps_store(sums + 24, d, more);
}

static void mps_byte_single(int run, const int8_t *w, const unsigned char *x, int groups,
                            int32_t *sums, int more) {
    __m256i a = _mm256_setzero_si256();
    while (groups > 0) {
        int count = groups < run / 2 ? groups : run / 2;
        __m256i e = _mm256_setzero_si256();
        groups -= count;
        for (; count > 0; count--, w += 32, x += 4) {
            const __m256i weights = _mm256_loadu_si256((const __m256i *)(const void *)w);
            e = _mm256_add_epi16(e, _mm256_maddubs_epi16(mps_four(x), weights));
        }
        a = _mm256_add_epi32(a, _mm256_madd_epi16(e, _mm256_set1_epi16(1)));
    }
    mps_store(sums, a, more);
}

static inline __m256i mps_weights(const int8_t *w) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)w));
}

/* Sums of two products of a code and a weight, both widened to 16 bits, in 32 bits. */
static void mps_wide_products(const int8_t *w, const unsigned char *x, size_t stride, int groups,
                              int32_t *sums, int more) {
    const unsigned char *y = x + 2 * stride;
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a, e = a, f = a, g = a, h = a;
    for (; groups > 0; groups--, w += 32, x += 8, y += 8) {
        const __m256i lower = mps_weights(w), upper = mps_weights(w + 16);
        __m256i codes = mps_four_wide(x);
        a = _mm256_add_epi32(a, _mm256_madd_epi16(lower, codes));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(upper, codes));
        codes = mps_four_wide(x + stride);
        c = _mm256_add_epi32(c, _mm256_madd_epi16(lower, codes));
        d = _mm256_add_epi32(d, _mm256_madd_epi16(upper, codes));
        codes = mps_four_wide(y);
        e = _mm256_add_epi32(e, _mm256_madd_epi16(lower, codes));
        f = _mm256_add_epi32(f, _mm256_madd_epi16(upper, codes));
        codes = mps_four_wide(y + stride);
        g = _mm256_add_epi32(g, _mm256_madd_epi16(lower, codes));
        h = _mm256_add_epi32(h, _mm256_madd_epi16(upper, codes));
    }
    mps_store(sums, mps_pairs(a, b), more);
    mps_store(sums + 8, mps_pairs(c, d), more);
    mps_store(sums + 16, mps_pairs(e, f), more);
    mps_store(sums + 24, mps_pairs(g, h), more);
}

static void mps_wide_single(const int8_t *w, const unsigned char *x, int groups, int32_t *sums,
                            int more) {
    __m256i a = _mm256_setzero_si256(), b = a;
    for (; groups > 0; groups--, w += 32, x += 8) {
        const __m256i codes = mps_four_wide(x);
        a = _mm256_add_epi32(a, _mm256_madd_epi16(mps_weights(w), codes));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(mps_weights(w + 16), codes));
    }
    mps_store(sums, mps_pairs(a, b), more);
}

static void mps_products(const mps_layer *layer, const int8_t *w, const void *patches,
                         size_t stride, int positions, int groups, int32_t *sums, int more) {
    const int bytes = mps_code_bytes(layer) == 1;
    const unsigned char *x = patches;
    for (; positions >= 4; positions -= 4, x += 4 * stride, sums += 4 * MPS_TILE) {
        if (bytes)
            mps_byte_products(layer->run, w, x, stride, groups, sums, more);
        else
            mps_wide_products(w, x, stride, groups, sums, more);
    }
    for (; positions > 0; positions--, x += stride, sums += MPS_TILE) {
        if (bytes)
            mps_byte_single(layer->run, w, x, groups, sums, more);
        else
            mps_wide_single(w, x, groups, sums, more);
    }
}

/* Only NEON finishes sums in registers. */
static inline int mps_products_to_bytes(const mps_layer *layer, const mps_constants *constants,
                                        const int8_t *w, const void *x, size_t stride,
                                        int positions, int groups, unsigned char *to,
                                        size_t apart) {
    (void)layer, (void)constants, (void)w, (void)x, (void)stride, (void)positions, (void)groups;
    (void)to, (void)apart;
    return 0;
}
