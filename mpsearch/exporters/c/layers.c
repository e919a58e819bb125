/* Convolution and linear layers of any widths in place: what patches.c and depthwise.c do not take
   (16-bit weights or codes, sums of more than 32 bits). Weights are row after row. */
#include "constants.h"

#define STRETCH 64 /* places of a line at once */
#define CHUNK 64   /* weights that a linear layer unpacks at once */

static uint16_t code16(const unsigned char *codes, size_t i) {
    uint16_t value;
    memcpy(&value, codes + 2 * i, 2);
    return value;
}

#define INPUT(layer, p, i) (p)[i]
#define SUM int32_t
#define NAME(x) x##_8_32
#include "sums.h"

#define INPUT(layer, p, i) (p)[i]
#define SUM int64_t
#define NAME(x) x##_8_64
#include "sums.h"

#define INPUT(layer, p, i) code16(p, i)
#define SUM int32_t
#define NAME(x) x##_16_32
#include "sums.h"

#define INPUT(layer, p, i) code16(p, i)
#define SUM int64_t
#define NAME(x) x##_16_64
#include "sums.h"

/* Packed codes. */
#define INPUT(layer, p, i) mps_get(p, (layer)->input_type, i)
#define SUM int64_t
#define NAME(x) x##_any_64
#include "sums.h"

/* The function of sums.h for a layer's codes, with sums of 64 and of 32 bits. */
#define WIDE(NAME, layer)                               \
    (mps_is_packed((layer)->input_type) ? NAME##_any_64 \
     : (layer)->input_type == MPS_U8    ? NAME##_8_64   \
                                        : NAME##_16_64)
#define NARROW(NAME, layer) ((layer)->input_type == MPS_U8 ? NAME##_8_32 : NAME##_16_32)

static int needs_wide(const mps_layer *layer) {
    return layer->wide_sums || mps_is_packed(layer->input_type);
}

static int64_t dot(const mps_layer *layer, const int16_t *weights, const unsigned char *codes,
                   size_t at, int count) {
    if (needs_wide(layer))
        return WIDE(dot, layer)(layer, weights, codes, at, count);
    return NARROW(dot, layer)(layer, weights, codes, at, count);
}

static int at_most(int x, int limit) { return x < limit ? x : limit; }

void mps_convolve(const mps_convolution *c, const void *input, const void *addend, void *output) {
    const mps_layer *layer = &c->layer;
    int64_t wide[STRETCH];
    int32_t narrow[STRETCH];
    const int is_wide = needs_wide(layer);
    for (int o = 0; o < c->outputs; o++) {
        const mps_scale scale = mps_scale_of(layer, o);
        for (int y = 0; y < c->output_height; y++) {
            for (int x = 0; x < c->output_width; x += STRETCH) {
                const int columns = at_most(STRETCH, c->output_width - x);
                const size_t at = (size_t)y * (size_t)c->output_width + (size_t)x;
                if (is_wide)
                    WIDE(line, layer)(c, input, o, y, x, columns, wide);
                else
                    NARROW(line, layer)(c, input, o, y, x, columns, narrow);
                for (int i = 0; i < columns; i++)
                    mps_put(layer, mps_finish(layer, scale, is_wide ? wide[i] : narrow[i]), addend,
                            output, (at + (size_t)i) * (size_t)c->outputs + (size_t)o);
            }
        }
    }
}

/* Output (y, x) sums the places of the kernel that an input lands on it with, from channel
   `first` on: those where
   y + top - ky * dilation is a multiple of the stride. Zeros between inputs are never multiplied.
 */
static int64_t landed(const mps_convolution *c, const int16_t *weights, const unsigned char *image,
                      size_t first, int y, int x) {
    const int inputs = c->channels / c->groups;
    int64_t sum = 0;
    for (int ky = 0; ky < c->kernel_height; ky++) {
        const int below = y + c->top - ky * c->dilation_y;
        if (below < 0 || below % c->stride_y || below / c->stride_y >= c->height)
            continue;
        for (int kx = 0; kx < c->kernel_width; kx++) {
            const int beside = x + c->left - kx * c->dilation_x;
            const int16_t *taps = weights + (ky * c->kernel_width + kx) * inputs;
            if (beside < 0 || beside % c->stride_x || beside / c->stride_x >= c->width)
                continue;
            sum += dot(&c->layer, taps, image,
                       ((size_t)(below / c->stride_y) * (size_t)c->width +
                        (size_t)(beside / c->stride_x)) *
                               (size_t)c->channels +
                           first,
                       inputs);
        }
    }
    return sum;
}

void mps_convolve_transposed(const mps_convolution *c, void *scratch, const void *input,
                             void *output) {
    const mps_layer *layer = &c->layer;
    const int inputs = c->channels / c->groups;
    const size_t terms = (size_t)c->kernel_height * (size_t)c->kernel_width * (size_t)inputs;
    int16_t *weights = scratch;
    for (int o = 0; o < c->outputs; o++) {
        const mps_scale scale = mps_scale_of(layer, o);
        const size_t first = (size_t)(o / (c->outputs / c->groups) * inputs);
        for (size_t i = 0; i < terms; i++)
            weights[i] = (int16_t)mps_weight(layer->weights, layer->bits, (size_t)o * terms + i);
        for (int y = 0; y < c->output_height; y++) {
            for (int x = 0; x < c->output_width; x++) {
                const size_t at = (size_t)y * (size_t)c->output_width + (size_t)x;
                const int64_t sum =
                    (layer->base ? layer->base[o] : 0) + landed(c, weights, input, first, y, x);
                mps_set(output, layer->output_type, at * (size_t)c->outputs + (size_t)o,
                        mps_finish(layer, scale, sum));
            }
        }
    }
}

void mps_multiply(const mps_linear *l, const void *input, const void *addend, void *output) {
    const mps_layer *layer = &l->layer;
    int16_t weights[CHUNK];
    for (int row = 0; row < l->rows; row++) {
        const size_t at = (size_t)row * (size_t)l->inputs;
        for (int o = 0; o < l->outputs; o++) {
            int64_t sum = layer->base ? layer->base[o] : 0;
            for (int i = 0; i < l->inputs; i += CHUNK) {
                const int count = at_most(CHUNK, l->inputs - i);
                const size_t start = (size_t)o * (size_t)l->inputs + (size_t)i;
                for (int k = 0; k < count; k++)
                    weights[k] =
                        (int16_t)mps_weight(layer->weights, layer->bits, start + (size_t)k);
                sum += dot(layer, weights, input, at + (size_t)i, count);
            }
            mps_put(layer, mps_finish(layer, mps_scale_of(layer, o), sum), addend, output,
                    (size_t)row * (size_t)l->outputs + (size_t)o);
        }
    }
}

void mps_embed(const mps_linear *l, const void *input, void *output) {
    const mps_layer *layer = &l->layer;
    const size_t columns = (size_t)l->inputs;
    for (size_t i = 0; i < (size_t)l->rows; i++) {
        /* a number beyond the table reads its first or last row */
        const int32_t row = mps_clip(mps_get(input, layer->input_type, i), 0, l->outputs - 1);
        const mps_scale scale = mps_scale_of(layer, l->block ? row : 0);
        for (size_t k = 0; k < columns; k++) {
            const size_t at = (size_t)row * columns + k;
            mps_set(output, layer->output_type, i * columns + k,
                    mps_finish(layer, scale, mps_weight(layer->weights, layer->bits, at)));
        }
    }
}
