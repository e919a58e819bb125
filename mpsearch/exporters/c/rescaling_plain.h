/* rescaling.h in plain C. */
typedef struct {
    const mps_constants *constants;
} mps_vectors;

static inline mps_vectors mps_vectors_of(const mps_constants *c) {
    const mps_vectors v = {c};
    return v;
}

static inline void mps_exact(const mps_constants *c, int raise, int32_t zero, int32_t low,
                             int32_t high, const int32_t *sums, int32_t *codes) {
    for (int i = 0; i < MPS_TILE; i++) {
        const int64_t x = (int64_t)sums[i] + c->base[i];
        codes[i] =
            mps_clip(mps_rescale(x, c->multiplier[i], c->shift[i] - raise, 0) + zero, low, high);
    }
}

static inline void mps_bytes(const mps_layer *layer, const mps_vectors *v, int clip, int raise,
                             const int32_t *sums, int rows, unsigned char *to, size_t stride) {
    (void)clip, (void)raise; /* the constants have it */
    for (; rows > 0; rows--, sums += MPS_TILE, to += stride) {
        for (int i = 0; i < MPS_TILE; i++) {
            const mps_constants *c = v->constants;
            const int64_t x = ((int64_t)sums[i] + c->base[i]) * c->multiplier[i];
            const int n = c->shift[i] - layer->raise;
            to[i] = (unsigned char)mps_clip(
                ((x + (INT64_C(1) << (n - 1))) >> n) + layer->output_zero, layer->low, layer->high);
        }
    }
}

static inline void mps_near(const mps_layer *layer, const mps_vectors *v, const int32_t *sums,
                            int32_t *codes) {
    mps_exact(v->constants, layer->raise, layer->output_zero, layer->low, layer->high, sums, codes);
}

static inline void mps_add_tile(const mps_sum *sum, const int32_t *addends, int32_t *results) {
    for (int i = 0; i < MPS_TILE; i++)
        results[i] = mps_add_up(sum, results[i], addends[i]);
}
