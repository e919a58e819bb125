/* Patches of signed bytes with NEON, for products_neon.h and products_sdot.h. */
#include <arm_neon.h>

static inline int mps_code_bytes(const mps_layer *layer) {
    (void)layer;
    return 1;
}

/* What is taken from the codes of a patch. */
static inline int mps_patch_offset(const mps_layer *layer) { return layer->offset; }

/* Codes - offset as a part of a patch: with offset 128, the highest bit turned. */
static inline void mps_centre(const mps_layer *layer, const unsigned char *codes, int count,
                              void *patch) {
    const uint8x16_t turn = vdupq_n_u8((uint8_t)layer->offset);
    unsigned char *to = patch;
    int i = 0;
    for (; i + 32 <= count; i += 32) {
        vst1q_u8(to + i, veorq_u8(vld1q_u8(codes + i), turn));
        vst1q_u8(to + i + 16, veorq_u8(vld1q_u8(codes + i + 16), turn));
    }
    if (i + 16 <= count) {
        vst1q_u8(to + i, veorq_u8(vld1q_u8(codes + i), turn));
        i += 16;
    }
    if (i == count)
        return;
    if (i + 8 <= count) {
        vst1_u8(to + i, veor_u8(vld1_u8(codes + i), vget_low_u8(turn)));
        i += 8;
    }
    if (i < count && count >= 8) {
        i = count - 8;
        vst1_u8(to + i, veor_u8(vld1_u8(codes + i), vget_low_u8(turn)));
        return;
    }
    for (; i < count; i++)
        to[i] = (unsigned char)(codes[i] ^ layer->offset);
}
