/* Convolution and linear layers on packed weights. With memory for patches they are computed as in
   patches.c; without (depthwise, or more than 8 bits) in place, with a tile of sums on the stack. */
#include "lines.h"
#include "patches.h"

#define TILE 256 /* sums of a tile: 2 KB of stack at most */
#define CHUNK 64 /* weights that a linear layer unpacks at once */

static uint16_t code16(const unsigned char *codes, int i) {
    uint16_t value;
    memcpy(&value, codes + 2 * (size_t)i, 2);
    return value;
}

#define INPUT(p, i) (p)[i]
#define WIDTH 1
#define SUM int32_t
#define NAME(x) x##_8_32
#define EIGHTS add_eights
#include "sums.h"

#define INPUT(p, i) (p)[i]
#define WIDTH 1
#define SUM int64_t
#define NAME(x) x##_8_64
#define EIGHTS(line, codes, weight, zero, count) 0
#include "sums.h"

#define INPUT(p, i) code16(p, i)
#define WIDTH 2
#define SUM int32_t
#define NAME(x) x##_16_32
#define EIGHTS(line, codes, weight, zero, count) 0
#include "sums.h"

#define INPUT(p, i) code16(p, i)
#define WIDTH 2
#define SUM int64_t
#define NAME(x) x##_16_64
#define EIGHTS(line, codes, weight, zero, count) 0
#include "sums.h"

static int at_most(int x, int limit) { return x < limit ? x : limit; }

void mps_convolve(const mps_convolution *c, void *patches, const void *input, void *output) {
    const mps_layer *layer = &c->layer;
    const int columns_most = at_most(c->output_width, TILE);
    const int rows_most = at_most(TILE / columns_most, c->output_height);
    int64_t wide[TILE];
    int32_t narrow[TILE];
    if (patches) {
        mps_convolve_patches(c, patches, input, output);
        return;
    }
    for (int o = 0; o < c->outputs; o++) {
        const mps_scale scale = mps_scale_of(layer, o);
        for (int row = 0; row < c->output_height; row += rows_most) {
            const int rows = at_most(rows_most, c->output_height - row);
            for (int column = 0; column < c->output_width; column += columns_most) {
                const int columns = at_most(columns_most, c->output_width - column);
                size_t at = ((size_t)o * (size_t)c->output_height + (size_t)row) *
                                (size_t)c->output_width + (size_t)column;
                if (layer->wide_sums)
                    (layer->input_type == MPS_U8 ? tile_8_64 : tile_16_64)(
                        c, input, o, row, rows, column, columns, wide);
                else
                    (layer->input_type == MPS_U8 ? tile_8_32 : tile_16_32)(
                        c, input, o, row, rows, column, columns, narrow);
                for (int y = 0; y < rows; y++, at += (size_t)c->output_width) {
                    for (int x = 0; x < columns; x++) {
                        const int i = y * columns + x;
                        const int64_t sum = layer->wide_sums ? wide[i] : narrow[i];
                        const int32_t code = mps_finish(layer, scale, sum);
                        if (layer->output_type == MPS_U8)
                            ((unsigned char *)output)[at + (size_t)x] = (unsigned char)code;
                        else
                            mps_set(output, layer->output_type, at + (size_t)x, code);
                    }
                }
            }
        }
    }
}

void mps_multiply(const mps_linear *l, void *patches, const void *input, void *output) {
    const mps_layer *layer = &l->layer;
    const size_t width = mps_size(layer->input_type);
    int16_t weights[CHUNK];
    if (patches) {
        mps_linear_patches(l, patches, input, output);
        return;
    }
    for (int row = 0; row < l->rows; row++) {
        const unsigned char *codes =
            (const unsigned char *)input + (size_t)row * (size_t)l->inputs * width;
        for (int o = 0; o < l->outputs; o++) {
            int64_t sum = layer->bias ? layer->bias[o] : 0;
            for (int i = 0; i < l->inputs; i += CHUNK) {
                const int count = at_most(CHUNK, l->inputs - i);
                const size_t start = (size_t)o * (size_t)l->inputs + (size_t)i;
                const unsigned char *from = codes + (size_t)i * width;
                for (int k = 0; k < count; k++)
                    weights[k] = (int16_t)mps_weight(layer->weights, layer->bits,
                                                     start + (size_t)k);
                if (layer->wide_sums)
                    sum += (layer->input_type == MPS_U8 ? dot_8_64 : dot_16_64)(
                        weights, from, count, layer->input_zero);
                else
                    sum += (layer->input_type == MPS_U8 ? dot_8_32 : dot_16_32)(
                        weights, from, count, layer->input_zero);
            }
            mps_set(output, layer->output_type,
                    (size_t)row * (size_t)l->outputs + (size_t)o,
                    mps_finish(layer, mps_scale_of(layer, o), sum));
        }
    }
}
