/* Lines of 3 x 3 taps, one place apart, with the dot products of x86 (VNNI): the three rows of a
   column are three of the four terms that a lane multiplies, so a position is three columns, each
   of which is put together once for three positions. */
static inline __m256i mps_unsigned(const int8_t *x) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)x));
}

/* The rows of 16 channels as unsigned codes: lanes of 32 bits are channels, in the order of
   mps_both_tiles; their bytes the three rows and what does not count. */
static inline MPS_INLINE void mps_column(const int8_t *r0, const int8_t *r1, const int8_t *r2,
                                         __m256i turn, __m256i *x) {
    const __m256i two = _mm256_xor_si256(
        turn, _mm256_or_si256(mps_unsigned(r0), _mm256_slli_epi16(mps_unsigned(r1), 8)));
    const __m256i one = _mm256_xor_si256(turn, mps_unsigned(r2));
    x[0] = _mm256_unpacklo_epi16(two, one);
    x[1] = _mm256_unpackhi_epi16(two, one);
}

/* The next column ends the sums `a` of one position, goes on with `b` of the next one, and begins
   with `c`. */
#define MPS_COLUMN(a, b, c)                            \
    mps_column(r0, r1, r2, turn, x);                   \
    r0 += MPS_WIDTH, r1 += MPS_WIDTH, r2 += MPS_WIDTH; \
    a##0 = mps_dot(a##0, x[0], u2[0]);                 \
    a##1 = mps_dot(a##1, x[1], u2[1]);                 \
    b##0 = mps_dot(b##0, x[0], u1[0]);                 \
    b##1 = mps_dot(b##1, x[1], u1[1]);                 \
    c##0 = mps_dot((mps_lanes)v[0].base, x[0], u0[0]); \
    c##1 = mps_dot((mps_lanes)v[1].base, x[1], u0[1])
#define MPS_CODES(a)                                                                   \
    _mm_storeu_si128((__m128i *)(void *)to,                                            \
                     mps_sixteen_codes(layer, v, clip, (__m256i)a##0, (__m256i)a##1)); \
    to += apart;                                                                       \
    if (--positions == 0)                                                              \
    return

/* `clip` is a constant. */
static inline MPS_INLINE void mps_columns(const mps_layer *layer, const mps_constants *constants,
                                          int clip, const int8_t *w, const int8_t *const *taps,
                                          int positions, unsigned char *to, size_t apart) {
    const __m256i turn = _mm256_set1_epi8((char)layer->offset), none = _mm256_setzero_si256();
    const int8_t *r0 = taps[0], *r1 = taps[3], *r2 = taps[6];
    mps_vectors v[2];
    __m256i u0[2], u1[2], u2[2], x[2];
    mps_lanes a0, a1, b0, b1, c0, c1;
    mps_both_tiles(constants, v);
    mps_column(w, w + 3 * MPS_WIDTH, w + 6 * MPS_WIDTH, none, u0);
    mps_column(w + MPS_WIDTH, w + 4 * MPS_WIDTH, w + 7 * MPS_WIDTH, none, u1);
    mps_column(w + 2 * MPS_WIDTH, w + 5 * MPS_WIDTH, w + 8 * MPS_WIDTH, none, u2);
    for (int i = 0; i < 2; i++) { /* codes are not - offset here */
        const mps_lanes excess =
            mps_dot(mps_dot(mps_dot((mps_lanes)none, turn, u0[i]), turn, u1[i]), turn, u2[i]);
        v[i].base = (__m256i)((mps_lanes)v[i].base - excess);
    }
    b0 = c0 = (mps_lanes)v[0].base, b1 = c1 = (mps_lanes)v[1].base;
    MPS_COLUMN(c, b, a);
    MPS_COLUMN(c, a, b);
    for (;;) {
        MPS_COLUMN(a, b, c);
        MPS_CODES(a);
        MPS_COLUMN(b, c, a);
        MPS_CODES(b);
        MPS_COLUMN(c, a, b);
        MPS_CODES(c);
    }
}

/* 0: other taps or another step. */
static MPS_APART int mps_columns_to_bytes(const mps_layer *layer, const mps_constants *constants,
                                          const int8_t *w, const int8_t *const *taps, int count,
                                          size_t step, int positions, unsigned char *to,
                                          size_t apart) {
    if (!mps_three_columns(taps, count, step))
        return 0;
    if (mps_raised_or_clipped(layer))
        mps_columns(layer, constants, 1, w, taps, positions, to, apart);
    else
        mps_columns(layer, constants, 0, w, taps, positions, to, apart);
    return 1;
}
