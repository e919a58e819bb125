/* Sums of 8 channels -> codes: + base, * multiplier / 2^shift, + zero point, clip. Three ways to
   the same integers: AVX2, NEON, and plain C.

   Half to even equals half up where no product is a tie, which the export proves for MPS_HALF_UP.
   Half up needs the upper halves of products only, for floors nest: with x * m = p
     floor(p / 2^n + 1/2) = floor((floor(p / 2^a) + 2^(n-a-1)) / 2^(n-a)),  a < n.
   Where n is too small for that, x and 2^n are multiplied by 2^raise before. */
#ifndef MPS_RESCALING_H
#define MPS_RESCALING_H

#include "constants.h"

#define MPS_ROWS 16 /* that are packed at once, a multiple of 4 */

/* Codes of up to a byte without ties: what kernels finish in registers, as bytes. */
static inline int mps_to_bytes(const mps_layer *layer) {
    return layer->rounding == MPS_HALF_UP &&
           (layer->output_type == MPS_U8 || mps_is_packed(layer->output_type));
}

/* Whether these codes need more than the range of their type. */
static inline int mps_raised_or_clipped(const mps_layer *layer) {
    return layer->low != 0 || layer->high != 255 || layer->raise != 0;
}

#if defined(__AVX2__) && !defined(MPS_PORTABLE)
#include "rescaling_avx2.h"
#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(MPS_PORTABLE)
#include "rescaling_neon.h"
#else
#include "rescaling_plain.h"
#endif

/* Elements at ... at + count - 1, count <= MPS_TILE; the others are 0. */
static inline void mps_read_tile(const void *data, mps_type type, size_t at, int count,
                                 int32_t *codes) {
    const unsigned char *bytes = (const unsigned char *)data + at;
    if (type == MPS_U8 && count == MPS_TILE) {
        for (int i = 0; i < MPS_TILE; i++)
            codes[i] = bytes[i];
        return;
    }
    for (int i = 0; i < MPS_TILE; i++)
        codes[i] = i < count ? mps_get(data, type, at + (size_t)i) : 0;
}

/* 8 codes of a byte each -> one after the other in 4 or 2 bytes. */
static inline void mps_pack_tile(const unsigned char *codes, mps_type type, unsigned char *to) {
    unsigned char four[4];
    const int up = type == MPS_U4 ? 4 : 2;
    for (int i = 0; i < 4; i++)
        four[i] = (unsigned char)(codes[2 * i] | codes[2 * i + 1] << up);
    if (type == MPS_U4) {
        memcpy(to, four, 4);
        return;
    }
    to[0] = (unsigned char)(four[0] | four[1] << 4);
    to[1] = (unsigned char)(four[2] | four[3] << 4);
}

/* Rows of 8 codes of a byte each, one after the other -> packed rows, which begin a byte. */
static inline void mps_pack_rows(const unsigned char *codes, int rows, mps_type type, void *output,
                                 size_t at, size_t stride) {
    const size_t in_a_byte = (size_t)mps_in_a_byte(type), apart = stride / in_a_byte;
    unsigned char *to = (unsigned char *)output + at / in_a_byte;
#ifdef MPS_PACK_TWO
    if (type == MPS_U4)
        for (; rows > 1; rows -= 2, codes += 2 * MPS_TILE, to += 2 * apart)
            MPS_PACK_TWO(codes, to, to + apart);
#endif
    for (; rows > 0; rows--, codes += MPS_TILE, to += apart)
        mps_pack_tile(codes, type, to);
}

/* True where each row of 8 channels begins a byte. */
static inline int mps_rows_are_whole(mps_type type, size_t at, size_t stride) {
    const size_t in_a_byte = (size_t)mps_in_a_byte(type);
    return at % in_a_byte == 0 && stride % in_a_byte == 0;
}

static inline void mps_write_tile(const int32_t *codes, void *data, mps_type type, size_t at,
                                  int count) {
    unsigned char *bytes = (unsigned char *)data + at, row[MPS_TILE];
    if (type == MPS_U8 && count == MPS_TILE)
        for (int i = 0; i < MPS_TILE; i++)
            bytes[i] = (unsigned char)codes[i];
    else if (count == MPS_TILE && mps_is_packed(type) && mps_rows_are_whole(type, at, 0)) {
        for (int i = 0; i < MPS_TILE; i++)
            row[i] = (unsigned char)codes[i];
        mps_pack_tile(row, type, (unsigned char *)data + at / (size_t)mps_in_a_byte(type));
    } else if (type == MPS_I32)
        memcpy((unsigned char *)data + 4 * at, codes, 4 * (size_t)count);
    else
        for (int i = 0; i < count; i++)
            mps_set(data, type, at + (size_t)i, codes[i]);
}

/* `rows` rows of 8 sums -> the codes of `count` channels, from element `at` of the output on and
   every `stride` elements; the layer's sum takes the addend's elements at the same places. There
   is room for sums up to a multiple of four rows. */
static inline void mps_finish_rows(const mps_layer *layer, const mps_constants *constants,
                                   const int32_t *sums, int rows, int count, const void *addend,
                                   void *output, size_t at, size_t stride) {
    const mps_vectors vectors = mps_vectors_of(constants);
    const mps_type type = mps_stored_type(layer);
    const int is_near = layer->rounding == MPS_HALF_UP;
    const int is_raw = layer->sum == NULL && is_near && count == MPS_TILE; /* a byte each */
    int32_t codes[MPS_TILE], addends[MPS_TILE];
    if (is_raw && type == MPS_U8) {
        unsigned char *to = (unsigned char *)output + at;
        if (layer->raise == 0 && layer->low == 0 && layer->high == 255)
            mps_bytes(layer, &vectors, 0, 0, sums, rows, to, stride);
        else
            mps_bytes(layer, &vectors, 1, layer->raise, sums, rows, to, stride);
        return;
    }
    if (is_raw && mps_is_packed(type) && mps_rows_are_whole(type, at, stride)) {
        unsigned char bytes[MPS_ROWS * MPS_TILE];
        for (; rows > 0; rows -= MPS_ROWS, sums += MPS_ROWS * MPS_TILE) {
            const int some = rows < MPS_ROWS ? rows : MPS_ROWS;
            mps_bytes(layer, &vectors, 1, layer->raise, sums, some, bytes, MPS_TILE);
            mps_pack_rows(bytes, some, type, output, at, stride);
            at += MPS_ROWS * stride;
        }
        return;
    }
    for (int row = 0; row < rows; row++, sums += MPS_TILE, at += stride) {
        if (is_near)
            mps_near(layer, &vectors, sums, codes);
        else
            mps_exact(constants, layer->raise, layer->output_zero, layer->low, layer->high, sums,
                      codes);
        if (layer->sum) {
            mps_read_tile(addend, layer->sum->addend_type, at, count, addends);
            mps_add_tile(layer->sum, addends, codes);
        }
        mps_write_tile(codes, output, type, at, count);
    }
}

#endif
