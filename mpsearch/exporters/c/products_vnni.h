/* products.h with the dot products of x86 (VNNI): a lane of a vector is a channel's group of 4
   terms. The codes of a patch stay unsigned, as the instruction wants them; what `offset` would
   have taken from them is taken from the sums. */
#define MPS_TEN 10 /* positions at a time */

static inline int mps_code_bytes(const mps_layer *layer) {
    (void)layer;
    return 1;
}

static inline int mps_patch_offset(const mps_layer *layer) {
    (void)layer;
    return 0;
}

static inline void mps_centre(const mps_layer *layer, const unsigned char *codes, int count,
                              void *patch) {
    (void)layer;
    memcpy(patch, codes, (size_t)count);
}

static inline __m256i mps_weights(const int8_t *w) {
    return _mm256_loadu_si256((const __m256i *)(const void *)w);
}

static inline __m256i mps_four(const unsigned char *patch) {
    int32_t codes;
    memcpy(&codes, patch, 4);
    return _mm256_set1_epi32(codes);
}

/* offset * the sum of a channel's weights */
static inline __m256i mps_excess(const mps_layer *layer, const int8_t *w, int groups) {
    const __m256i offset = _mm256_set1_epi8((char)layer->offset);
    mps_lanes a = {0}, b = a, c = a, d = a;
    if (layer->offset == 0)
        groups = 0;
    for (; groups >= 4; groups -= 4, w += 128) {
        a = mps_dot(a, offset, mps_weights(w));
        b = mps_dot(b, offset, mps_weights(w + 32));
        c = mps_dot(c, offset, mps_weights(w + 64));
        d = mps_dot(d, offset, mps_weights(w + 96));
    }
    for (; groups > 0; groups--, w += 32)
        a = mps_dot(a, offset, mps_weights(w));
    return (__m256i)(a + b + c + d);
}

/* Adds to the sums of ten positions. */
static inline MPS_INLINE void mps_ten_dots(const int8_t *w, const unsigned char *x, size_t stride,
                                           int groups, mps_lanes *sums) {
    const unsigned char *y = x + 3 * stride, *z = y + 3 * stride, *last = z + 3 * stride;
    mps_lanes a = sums[0], b = sums[1], c = sums[2], d = sums[3], e = sums[4];
    mps_lanes f = sums[5], g = sums[6], h = sums[7], i = sums[8], j = sums[9];
    for (; groups > 0; groups--, w += 32, x += 4, y += 4, z += 4, last += 4) {
        const __m256i weights = mps_weights(w);
        a = mps_dot(a, mps_four(x), weights);
        b = mps_dot(b, mps_four(x + stride), weights);
        c = mps_dot(c, mps_four(x + 2 * stride), weights);
        d = mps_dot(d, mps_four(y), weights);
        e = mps_dot(e, mps_four(y + stride), weights);
        f = mps_dot(f, mps_four(y + 2 * stride), weights);
        g = mps_dot(g, mps_four(z), weights);
        h = mps_dot(h, mps_four(z + stride), weights);
        i = mps_dot(i, mps_four(z + 2 * stride), weights);
        j = mps_dot(j, mps_four(last), weights);
    }
    sums[0] = a, sums[1] = b, sums[2] = c, sums[3] = d, sums[4] = e;
    sums[5] = f, sums[6] = g, sums[7] = h, sums[8] = i, sums[9] = j;
}

static inline MPS_INLINE void mps_four_dots(const int8_t *w, const unsigned char *x, size_t stride,
                                            int groups, mps_lanes *sums) {
    const unsigned char *y = x + 2 * stride;
    mps_lanes a = sums[0], b = sums[1], c = sums[2], d = sums[3];
    for (; groups > 0; groups--, w += 32, x += 4, y += 4) {
        const __m256i weights = mps_weights(w);
        a = mps_dot(a, mps_four(x), weights);
        b = mps_dot(b, mps_four(x + stride), weights);
        c = mps_dot(c, mps_four(y), weights);
        d = mps_dot(d, mps_four(y + stride), weights);
    }
    sums[0] = a, sums[1] = b, sums[2] = c, sums[3] = d;
}

/* Four sums, which do not wait for each other. */
static inline MPS_INLINE void mps_one_dots(const int8_t *w, const unsigned char *x, int groups,
                                           mps_lanes *sums) {
    mps_lanes a = *sums, b = {0}, c = b, d = b;
    for (; groups >= 4; groups -= 4, w += 128, x += 16) {
        a = mps_dot(a, mps_four(x), mps_weights(w));
        b = mps_dot(b, mps_four(x + 4), mps_weights(w + 32));
        c = mps_dot(c, mps_four(x + 8), mps_weights(w + 64));
        d = mps_dot(d, mps_four(x + 12), mps_weights(w + 96));
    }
    for (; groups > 0; groups--, w += 32, x += 4)
        a = mps_dot(a, mps_four(x), mps_weights(w));
    *sums = (a + b + c + d);
}

/* `count`, a constant, is 10, 4 or 1. */
static inline MPS_INLINE void mps_dots(int count, const int8_t *w, const unsigned char *x,
                                       size_t stride, int groups, mps_lanes *sums) {
    if (count == MPS_TEN)
        mps_ten_dots(w, x, stride, groups, sums);
    else if (count == 4)
        mps_four_dots(w, x, stride, groups, sums);
    else
        mps_one_dots(w, x, groups, sums);
}

static inline MPS_INLINE void mps_some_sums(int count, const int8_t *w, const unsigned char *x,
                                            size_t stride, int groups, __m256i excess,
                                            int32_t *sums, int more) {
    mps_lanes all[MPS_TEN] = {{0}};
#pragma GCC unroll 10
    for (int p = 0; p < count; p++)
        all[p] = (more ? (mps_lanes)mps_load(sums + p * MPS_TILE) : all[p]) - (mps_lanes)excess;
    mps_dots(count, w, x, stride, groups, all);
#pragma GCC unroll 10
    for (int p = 0; p < count; p++)
        _mm256_storeu_si256((__m256i *)(void *)(sums + p * MPS_TILE), (__m256i)all[p]);
}

static MPS_APART void mps_products(const mps_layer *layer, const int8_t *w, const void *patches,
                                   size_t stride, int positions, int groups, int32_t *sums,
                                   int more) {
    const unsigned char *x = patches;
    const __m256i excess = mps_excess(layer, w, groups);
    for (; positions >= MPS_TEN; positions -= MPS_TEN, x += MPS_TEN * stride) {
        mps_some_sums(MPS_TEN, w, x, stride, groups, excess, sums, more);
        sums += MPS_TEN * MPS_TILE;
    }
    for (; positions > 0; positions--, x += stride, sums += MPS_TILE)
        mps_some_sums(1, w, x, stride, groups, excess, sums, more);
}

static inline MPS_INLINE void mps_some_codes(const mps_layer *layer, const mps_vectors *v, int clip,
                                             int count, const int8_t *w, const unsigned char *x,
                                             size_t stride, int groups, unsigned char *to,
                                             size_t apart) {
    mps_lanes sums[MPS_TEN + 2];
#pragma GCC unroll 12
    for (int p = 0; p < MPS_TEN + 2; p++)
        sums[p] = (mps_lanes)v->base;
    mps_dots(count, w, x, stride, groups, sums);
#pragma GCC unroll 3
    for (int p = 0; p < count; p += 4)
        mps_four_rows(layer, v, clip, clip ? layer->raise : 0, (const __m256i *)(sums + p),
                      count - p < 4 ? count - p : 4, to + (size_t)p * apart, apart);
}

static inline MPS_INLINE void mps_all_codes(const mps_layer *layer, const mps_vectors *v, int clip,
                                            const int8_t *w, const unsigned char *x, size_t stride,
                                            int positions, int groups, unsigned char *to,
                                            size_t apart) {
    for (; positions >= MPS_TEN; positions -= MPS_TEN, x += MPS_TEN * stride) {
        mps_some_codes(layer, v, clip, MPS_TEN, w, x, stride, groups, to, apart);
        to += MPS_TEN * apart;
    }
    for (; positions >= 4; positions -= 4, x += 4 * stride, to += 4 * apart)
        mps_some_codes(layer, v, clip, 4, w, x, stride, groups, to, apart);
    for (; positions > 0; positions--, x += stride, to += apart)
        mps_some_codes(layer, v, clip, 1, w, x, stride, groups, to, apart);
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
    if (mps_raised_or_clipped(layer))
        mps_all_codes(layer, &v, 1, w, x, stride, positions, groups, to, apart);
    else
        mps_all_codes(layer, &v, 0, w, x, stride, positions, groups, to, apart);
    return 1;
}
