/* Lines of 3 x 3 taps, one place apart, with the dot products of Armv8.2 (SDOT), 8 channels at a
   time: the three rows of a column are three of the four terms that a lane multiplies, so a
   position is three columns, each of which is put together once for three positions. */

/* The rows of 8 channels: lanes of 32 bits are channels, their bytes the three rows and a zero. */
static inline MPS_INLINE int8x16x2_t mps_column(const int8_t *r0, const int8_t *r1,
                                                const int8_t *r2) {
    const int8x16_t none = vdupq_n_s8(0);
    const int8x16_t first = vcombine_s8(vld1_s8(r0), vget_low_s8(none));
    const int8x16_t second = vcombine_s8(vld1_s8(r1), vget_low_s8(none));
    const int8x16_t third = vcombine_s8(vld1_s8(r2), vget_low_s8(none));
    const int16x8_t two = vreinterpretq_s16_s8(vzip1q_s8(first, second));
    const int16x8_t one = vreinterpretq_s16_s8(vzip1q_s8(third, none));
    int8x16x2_t column;
    column.val[0] = vreinterpretq_s8_s16(vzip1q_s16(two, one));
    column.val[1] = vreinterpretq_s8_s16(vzip2q_s16(two, one));
    return column;
}

/* The next column ends the sums `a` of one position, goes on with `b` of the next one, and begins
   with `c`. */
#define MPS_COLUMN(a, b, c)                            \
    x = mps_column(r0, r1, r2);                        \
    r0 += MPS_WIDTH, r1 += MPS_WIDTH, r2 += MPS_WIDTH; \
    a##0 = vdotq_s32(a##0, u2.val[0], x.val[0]);       \
    a##1 = vdotq_s32(a##1, u2.val[1], x.val[1]);       \
    b##0 = vdotq_s32(b##0, u1.val[0], x.val[0]);       \
    b##1 = vdotq_s32(b##1, u1.val[1], x.val[1]);       \
    c##0 = vdotq_s32(v.base[0], u0.val[0], x.val[0]);  \
    c##1 = vdotq_s32(v.base[1], u0.val[1], x.val[1])
#define MPS_CODES(a)                                                   \
    if (clip)                                                          \
        a##0 = vshlq_s32(a##0, raise), a##1 = vshlq_s32(a##1, raise);  \
    codes = vqmovun_s16(vqaddq_s16(mps_narrow(&v, a##0, a##1), zero)); \
    if (clip)                                                          \
        codes = vmin_u8(vmax_u8(codes, lowest), highest);              \
    mps_store_codes(&to, apart, codes);                                \
    if (--positions == 0)                                              \
    return

/* `clip` is a constant; taps are apart by MPS_WIDTH. */
static inline MPS_INLINE void mps_eight_channels(const mps_layer *layer,
                                                 const mps_constants *constants, int clip,
                                                 int first, const int8_t *w,
                                                 const int8_t *const *taps, int positions,
                                                 unsigned char *to, size_t apart) {
    const mps_vectors v = mps_vectors_of(constants);
    const int16x8_t zero = vdupq_n_s16((int16_t)layer->output_zero);
    const int32x4_t raise = vdupq_n_s32(layer->raise);
    const uint8x8_t lowest = vdup_n_u8((uint8_t)layer->low),
                    highest = vdup_n_u8((uint8_t)layer->high);
    const int8_t *r0 = taps[0] + first, *r1 = taps[3] + first, *r2 = taps[6] + first;
    const int8x16x2_t u0 = mps_column(w, w + 3 * MPS_WIDTH, w + 6 * MPS_WIDTH);
    const int8x16x2_t u1 = mps_column(w + MPS_WIDTH, w + 4 * MPS_WIDTH, w + 7 * MPS_WIDTH);
    const int8x16x2_t u2 = mps_column(w + 2 * MPS_WIDTH, w + 5 * MPS_WIDTH, w + 8 * MPS_WIDTH);
    int32x4_t a0, a1, b0 = v.base[0], b1 = v.base[1], c0 = b0, c1 = b1;
    int8x16x2_t x;
    uint8x8_t codes;
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
    const int clip = mps_raised_or_clipped(layer);
    if (!mps_three_columns(taps, count, step))
        return 0;
    for (int first = 0; first < MPS_WIDTH; first += MPS_TILE, to += MPS_TILE, constants++) {
        if (clip)
            mps_eight_channels(layer, constants, 1, first, w + first, taps, positions, to, apart);
        else
            mps_eight_channels(layer, constants, 0, first, w + first, taps, positions, to, apart);
    }
    return 1;
}
