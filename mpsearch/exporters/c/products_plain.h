/* products.h in plain C. */
static inline int mps_code_bytes(const mps_layer *layer) {
    (void)layer;
    return 1;
}

/* What is taken from the codes of a patch. */
static inline int mps_patch_offset(const mps_layer *layer) { return layer->offset; }

static inline void mps_centre(const mps_layer *layer, const unsigned char *codes, int count,
                              void *patch) {
    int8_t *to = patch;
    for (int i = 0; i < count; i++)
        to[i] = (int8_t)(codes[i] - layer->offset);
}

/* Loops over 32 weights and 32 repeated codes, which compilers turn into vectors. */
static void mps_products(const mps_layer *layer, const int8_t *w, const void *patches,
                         size_t stride, int positions, int groups, int32_t *sums, int more) {
    const int8_t *x = patches;
    (void)layer;
    for (int p = 0; p < positions; p++, x += stride, sums += MPS_TILE) {
        int32_t all[MPS_TILE * MPS_GROUP] = {0};
        for (int g = 0; g < groups; g++) {
            const int8_t *weights = w + MPS_TILE * MPS_GROUP * g, *codes = x + MPS_GROUP * g;
            int8_t repeated[MPS_TILE * MPS_GROUP];
            for (int i = 0; i < MPS_TILE; i++)
                memcpy(repeated + MPS_GROUP * i, codes, MPS_GROUP);
            for (int i = 0; i < MPS_TILE * MPS_GROUP; i++)
                all[i] += (int16_t)(weights[i] * repeated[i]); /* fits: 127 * 128 */
        }
        for (int channel = 0; channel < MPS_TILE; channel++) {
            const int32_t *four = all + MPS_GROUP * channel;
            sums[channel] = (more ? sums[channel] : 0) + four[0] + four[1] + four[2] + four[3];
        }
    }
}

/* Plain C does not finish sums in registers. */
static inline int mps_products_to_bytes(const mps_layer *layer, const mps_constants *constants,
                                        const int8_t *w, const void *x, size_t stride,
                                        int positions, int groups, unsigned char *to,
                                        size_t apart) {
    (void)layer, (void)constants, (void)w, (void)x, (void)stride, (void)positions, (void)groups;
    (void)to, (void)apart;
    return 0;
}
