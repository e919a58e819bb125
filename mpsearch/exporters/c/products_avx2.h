/* products.h with AVX2: 8 channels of 4 terms are one or two vectors, four positions at a time. */
/* Products of a weight and an unsigned code that fit 16 bits together: 255 are more than 128. */
static inline int mps_unsigned_run(const mps_layer *layer) {
    return layer->offset ? layer->run * 128 / 255 : layer->run;
}

/* Codes stay unsigned bytes where two products and more fit 16 bits, and what `offset` would have
   taken from them is taken from the sums; others become 16 bits. */
static inline int mps_code_bytes(const mps_layer *layer) {
    return mps_unsigned_run(layer) >= 2 ? 1 : 2;
}

/* What is taken from the codes of a patch. */
static inline int mps_patch_offset(const mps_layer *layer) {
    return mps_code_bytes(layer) == 1 ? 0 : layer->offset;
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

/* Sums of four positions; `run` / 2 sums of two products are added up in 16 bits before they are
   widened. */
static inline MPS_INLINE void mps_byte_dots(int run, const int8_t *w, const unsigned char *x,
                                            size_t stride, int groups, __m256i *sums) {
    const __m256i ones = _mm256_set1_epi16(1);
    const unsigned char *y = x + 2 * stride;
    mps_lanes a = {0}, b = a, c = a, d = a;
    while (groups > 0) {
        int count = groups < run / 2 ? groups : run / 2;
        mps_halves e = {0}, f = e, g = e, h = e;
        groups -= count;
        for (; count > 0; count--, w += 32, x += 4, y += 4) {
            const __m256i weights = _mm256_loadu_si256((const __m256i *)(const void *)w);
            MPS_ADD_HALVES(e, _mm256_maddubs_epi16(mps_four(x), weights));
            MPS_ADD_HALVES(f, _mm256_maddubs_epi16(mps_four(x + stride), weights));
            MPS_ADD_HALVES(g, _mm256_maddubs_epi16(mps_four(y), weights));
            MPS_ADD_HALVES(h, _mm256_maddubs_epi16(mps_four(y + stride), weights));
        }
        MPS_ADD(a, _mm256_madd_epi16(MPS_VECTOR(e), ones));
        MPS_ADD(b, _mm256_madd_epi16(MPS_VECTOR(f), ones));
        MPS_ADD(c, _mm256_madd_epi16(MPS_VECTOR(g), ones));
        MPS_ADD(d, _mm256_madd_epi16(MPS_VECTOR(h), ones));
    }
    sums[0] = MPS_VECTOR(a), sums[1] = MPS_VECTOR(b), sums[2] = MPS_VECTOR(c),
    sums[3] = MPS_VECTOR(d);
}

static inline MPS_INLINE __m256i mps_byte_single(int run, const int8_t *w, const unsigned char *x,
                                                 int groups) {
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
    return a;
}

static inline __m256i mps_weights(const int8_t *w) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)w));
}

/* Sums of two products of a code and a weight, both widened to 16 bits, in 32 bits. */
static inline MPS_INLINE void mps_wide_dots(const int8_t *w, const unsigned char *x, size_t stride,
                                            int groups, __m256i *sums) {
    const unsigned char *y = x + 2 * stride;
    mps_lanes a = {0}, b = a, c = a, d = a, e = a, f = a, g = a, h = a;
    for (; groups > 0; groups--, w += 32, x += 8, y += 8) {
        const __m256i lower = mps_weights(w), upper = mps_weights(w + 16);
        __m256i codes = mps_four_wide(x);
        MPS_ADD(a, _mm256_madd_epi16(lower, codes));
        MPS_ADD(b, _mm256_madd_epi16(upper, codes));
        codes = mps_four_wide(x + stride);
        MPS_ADD(c, _mm256_madd_epi16(lower, codes));
        MPS_ADD(d, _mm256_madd_epi16(upper, codes));
        codes = mps_four_wide(y);
        MPS_ADD(e, _mm256_madd_epi16(lower, codes));
        MPS_ADD(f, _mm256_madd_epi16(upper, codes));
        codes = mps_four_wide(y + stride);
        MPS_ADD(g, _mm256_madd_epi16(lower, codes));
        MPS_ADD(h, _mm256_madd_epi16(upper, codes));
    }
    sums[0] = mps_pairs(MPS_VECTOR(a), MPS_VECTOR(b)),
    sums[1] = mps_pairs(MPS_VECTOR(c), MPS_VECTOR(d));
    sums[2] = mps_pairs(MPS_VECTOR(e), MPS_VECTOR(f)),
    sums[3] = mps_pairs(MPS_VECTOR(g), MPS_VECTOR(h));
}

static inline MPS_INLINE __m256i mps_wide_single(const int8_t *w, const unsigned char *x,
                                                 int groups) {
    __m256i a = _mm256_setzero_si256(), b = a;
    for (; groups > 0; groups--, w += 32, x += 8) {
        const __m256i codes = mps_four_wide(x);
        a = _mm256_add_epi32(a, _mm256_madd_epi16(mps_weights(w), codes));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(mps_weights(w + 16), codes));
    }
    return mps_pairs(a, b);
}

/* Sums of one position or of four; `bytes` and `count` are constants. */
static inline MPS_INLINE void mps_dots(int bytes, int count, int run, const int8_t *w,
                                       const unsigned char *x, size_t stride, int groups,
                                       __m256i *sums) {
    if (count == 1)
        sums[0] = bytes ? mps_byte_single(run, w, x, groups) : mps_wide_single(w, x, groups);
    else if (bytes)
        mps_byte_dots(run, w, x, stride, groups, sums);
    else
        mps_wide_dots(w, x, stride, groups, sums);
}

/* offset * the sum of a channel's weights, where codes stay unsigned */
static inline __m256i mps_excess(const mps_layer *layer, const int8_t *w, int groups) {
    const __m256i one = _mm256_set1_epi8(1), ones = _mm256_set1_epi16(1);
    __m256i a = _mm256_setzero_si256();
    if (mps_patch_offset(layer) == layer->offset)
        return a;
    for (; groups > 0; groups--, w += 32) {
        const __m256i weights = _mm256_loadu_si256((const __m256i *)(const void *)w);
        a = _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_maddubs_epi16(one, weights), ones));
    }
    return _mm256_mullo_epi32(a, _mm256_set1_epi32(layer->offset));
}

static inline MPS_INLINE void mps_some_sums(int bytes, int count, int run, const int8_t *w,
                                            const unsigned char *x, size_t stride, int groups,
                                            __m256i excess, int32_t *sums, int more) {
    __m256i all[4];
    mps_dots(bytes, count, run, w, x, stride, groups, all);
#pragma GCC unroll 4
    for (int p = 0; p < count; p++, sums += MPS_TILE) {
        __m256i total = _mm256_sub_epi32(all[p], excess);
        if (more)
            total = _mm256_add_epi32(total, mps_load(sums));
        _mm256_storeu_si256((__m256i *)(void *)sums, total);
    }
}

static inline MPS_INLINE void mps_all_sums(const mps_layer *layer, int bytes, const int8_t *w,
                                           const unsigned char *x, size_t stride, int positions,
                                           int groups, int32_t *sums, int more) {
    const __m256i excess = mps_excess(layer, w, groups);
    const int run = mps_unsigned_run(layer);
    for (; positions >= 4; positions -= 4, x += 4 * stride, sums += 4 * MPS_TILE)
        mps_some_sums(bytes, 4, run, w, x, stride, groups, excess, sums, more);
    for (; positions > 0; positions--, x += stride, sums += MPS_TILE)
        mps_some_sums(bytes, 1, run, w, x, stride, groups, excess, sums, more);
}

static void mps_products(const mps_layer *layer, const int8_t *w, const void *patches,
                         size_t stride, int positions, int groups, int32_t *sums, int more) {
    if (mps_code_bytes(layer) == 1)
        mps_all_sums(layer, 1, w, patches, stride, positions, groups, sums, more);
    else
        mps_all_sums(layer, 0, w, patches, stride, positions, groups, sums, more);
}

static inline MPS_INLINE void mps_all_codes(const mps_layer *layer, const mps_vectors *v, int bytes,
                                            const int8_t *w, const unsigned char *x, size_t stride,
                                            int positions, int groups, unsigned char *to,
                                            size_t apart) {
    const int run = mps_unsigned_run(layer);
    __m256i sums[4];
    sums[1] = sums[2] = sums[3] = v->base;
    for (; positions >= 4; positions -= 4, x += 4 * stride, to += 4 * apart) {
        mps_dots(bytes, 4, run, w, x, stride, groups, sums);
#pragma GCC unroll 4
        for (int p = 0; p < 4; p++)
            sums[p] = _mm256_add_epi32(sums[p], v->base);
        mps_four_rows(layer, v, 1, layer->raise, sums, 4, to, apart);
    }
    for (; positions > 0; positions--, x += stride, to += apart) {
        mps_dots(bytes, 1, run, w, x, stride, groups, sums);
        sums[0] = _mm256_add_epi32(sums[0], v->base);
        mps_four_rows(layer, v, 1, layer->raise, sums, 1, to, apart);
    }
}

/* As mps_products and mps_finish_rows at once, without going through memory: 8 codes of one byte
   for every position. 0: this layer needs these two. */
static MPS_APART int mps_products_to_bytes(const mps_layer *layer, const mps_constants *constants,
                                           const int8_t *w, const void *x, size_t stride,
                                           int positions, int groups, unsigned char *to,
                                           size_t apart) {
    mps_vectors v = mps_vectors_of(constants);
    if (!mps_to_bytes(layer))
        return 0;
    v.base = _mm256_sub_epi32(v.base, mps_excess(layer, w, groups));
    if (mps_code_bytes(layer) == 1)
        mps_all_codes(layer, &v, 1, w, x, stride, positions, groups, to, apart);
    else
        mps_all_codes(layer, &v, 0, w, x, stride, positions, groups, to, apart);
    return 1;
}
