/* Convolution and linear layers as products with blocks of patches, for weights and codes of up to
   8 bits. A patch holds the codes that one output position sees, minus `offset`, which makes them
   signed bytes: sum w * (q - z) = sum w * (q - offset) + (offset - z) * sum w, and the last part is
   in `base`. Padded places hold z - offset. */
#include "products.h"
#include "rescaling.h"
#include "unpacking.h"

#define CHUNK 256 /* terms whose weights are unpacked at once; a multiple of MPS_GROUP */
#define MOST 64   /* positions of a block; _MOST_POSITIONS in kernels.py */

static int at_most(int x, int limit) { return x < limit ? x : limit; }

static int whole_groups(int terms) { return (terms + MPS_GROUP - 1) / MPS_GROUP; }

/* `count` channels' weights for terms k ... k + terms - 1, as mps_products reads them: filled up
   with zeros to 8 channels and to whole groups. `start` is the first code of the tile. */
static void unpack_tile(const mps_layer *layer, size_t start, int count, int k, int terms,
                        int8_t *weights) {
    const int whole = terms / MPS_GROUP, rest = terms % MPS_GROUP;
    const size_t at = start + (size_t)count * (size_t)k;
    int8_t last[MPS_TILE * MPS_GROUP];
    if (count == MPS_TILE) {
        mps_unpack(layer->weights, layer->bits, at, MPS_TILE * MPS_GROUP * whole, weights);
    } else {
        memset(weights, 0, (size_t)(MPS_TILE * MPS_GROUP * whole));
        for (int i = 0; i < whole; i++)
            mps_unpack(layer->weights, layer->bits, at + (size_t)(i * count * MPS_GROUP),
                       count * MPS_GROUP, weights + i * MPS_TILE * MPS_GROUP);
    }
    if (rest == 0) return;
    weights += whole * MPS_TILE * MPS_GROUP;
    memset(weights, 0, MPS_TILE * MPS_GROUP);
    mps_unpack(layer->weights, layer->bits, at + (size_t)(whole * count * MPS_GROUP), count * rest,
               last);
    for (int channel = 0; channel < count; channel++)
        for (int i = 0; i < rest; i++) weights[channel * MPS_GROUP + i] = last[channel * rest + i];
}

/* Constants of `tiles` tiles of `outputs` channels from `first` on. */
static unsigned char *make_constants(const mps_layer *layer, int first, int outputs,
                                     unsigned char *to) {
    for (int o = 0; o < outputs; o += MPS_TILE, to += sizeof(mps_constants)) {
        const mps_constants constants =
            mps_constants_of(layer, first + o, at_most(MPS_TILE, outputs - o));
        memcpy(to, &constants, sizeof constants);
    }
    return to;
}

/* Output channels first ... first + outputs - 1 of `positions` patches, to elements
   at + channel + position * stride. */
static void multiply(const mps_layer *layer, const unsigned char *constants, int first, int outputs,
                     int terms, const unsigned char *patches, int positions, void *output, size_t at,
                     size_t stride) {
    const size_t width = (size_t)mps_code_bytes(layer);
    const size_t row = (size_t)(whole_groups(terms) * MPS_GROUP) * width;
    int8_t unpacked[CHUNK * MPS_TILE];
    int32_t sums[MOST * MPS_TILE];
    for (int o = 0; o < outputs; o += MPS_TILE, constants += sizeof(mps_constants)) {
        const int count = at_most(MPS_TILE, outputs - o);
        const size_t start = (size_t)(first + o) * (size_t)terms;
        const int in_place = layer->bits == 8 && count == MPS_TILE && terms % MPS_GROUP == 0;
        mps_constants tile;
        for (int k = 0; k < terms;) {
            const int some = in_place ? terms : at_most(CHUNK, terms - k);
            const int8_t *weights = unpacked;
            if (in_place)
                weights = (const int8_t *)layer->weights + start;
            else
                unpack_tile(layer, start, count, k, some, unpacked);
            for (int p = 0; p < positions; p += MPS_TILE_POSITIONS)
                mps_products(layer, weights, patches + (size_t)p * row + (size_t)k * width, row,
                             whole_groups(some), sums + p * MPS_TILE, k > 0);
            k += some;
        }
        memcpy(&tile, constants, sizeof tile);
        mps_finish_rows(layer, &tile, sums, positions, count, output, at + (size_t)(first + o),
                        stride);
    }
}

/* The patch of output position (y, x) of the group whose channels begin at `image`. */
static void gather(const mps_convolution *c, const unsigned char *image, int y, int x,
                   unsigned char *patch) {
    const mps_layer *layer = &c->layer;
    const int inputs = c->channels / c->groups, width = mps_code_bytes(layer);
    const int top = y * c->stride_y - c->top, left = x * c->stride_x - c->left;
    const unsigned char zero = (unsigned char)layer->input_zero;
    /* columns inside the image lie at kx = from ... to - 1 */
    const int dense = c->dilation_x == 1 && c->groups == 1;
    int from = left < 0 ? at_most(-left, c->kernel_width) : 0;
    int to = at_most(c->width - left, c->kernel_width);
    if (to < from) to = from;
    for (int ky = 0; ky < c->kernel_height; ky++) {
        const int sy = top + ky * c->dilation_y;
        const unsigned char *line = image + (ptrdiff_t)(sy * c->width + left) * c->channels;
        if (dense && sy >= 0 && sy < c->height) {
            for (int i = 0; i < from * inputs; i++, patch += width)
                mps_centre(layer, &zero, 1, patch);
            mps_centre(layer, line + from * inputs, (to - from) * inputs, patch);
            patch += (to - from) * inputs * width;
            for (int i = to * inputs; i < c->kernel_width * inputs; i++, patch += width)
                mps_centre(layer, &zero, 1, patch);
            continue;
        }
        for (int kx = 0; kx < c->kernel_width; kx++) {
            const int sx = left + kx * c->dilation_x;
            if (sy >= 0 && sy < c->height && sx >= 0 && sx < c->width) {
                mps_centre(layer, line + kx * c->dilation_x * c->channels, inputs, patch);
                patch += inputs * width;
                continue;
            }
            for (int i = 0; i < inputs; i++, patch += width) mps_centre(layer, &zero, 1, patch);
        }
    }
}

void mps_convolve_patches(const mps_convolution *c, void *scratch, const void *input,
                          void *output) {
    const mps_layer *layer = &c->layer;
    const int inputs = c->channels / c->groups, outputs = c->outputs / c->groups;
    const int terms = inputs * c->kernel_height * c->kernel_width;
    const int row = whole_groups(terms) * MPS_GROUP * mps_code_bytes(layer);
    const int count = c->output_height * c->output_width;
    const int pointwise = c->kernel_height == 1 && c->kernel_width == 1 && c->stride_y == 1 &&
                          c->stride_x == 1 && c->top == 0 && c->left == 0 && c->groups == 1 &&
                          inputs % MPS_GROUP == 0 && c->output_width == c->width;
    unsigned char *constants = scratch, *patches = constants;
    for (int group = 0; group < c->groups; group++) {
        const unsigned char *image = (const unsigned char *)input + group * inputs;
        const unsigned char *end = make_constants(layer, group * outputs, outputs, constants);
        int y = 0, x = 0;
        patches = constants + (end - constants);
        for (int first = 0; first < count; first += c->block) {
            const int positions = at_most(c->block, count - first);
            if (pointwise)
                mps_centre(layer, image + (size_t)first * (size_t)inputs, positions * inputs,
                           patches);
            for (int p = 0; p < positions && !pointwise; p++) {
                gather(c, image, y, x, patches + p * row);
                if (++x == c->output_width) x = 0, y++;
            }
            multiply(layer, constants, group * outputs, outputs, terms, patches, positions, output,
                     (size_t)first * (size_t)c->outputs, (size_t)c->outputs);
        }
    }
}

void mps_multiply_patches(const mps_linear *l, void *scratch, const void *input, void *output) {
    const unsigned char *codes = input;
    const int row = whole_groups(l->inputs) * MPS_GROUP * mps_code_bytes(&l->layer);
    unsigned char *patches = make_constants(&l->layer, 0, l->outputs, scratch);
    for (int first = 0; first < l->rows; first += l->block) {
        const int rows = at_most(l->block, l->rows - first);
        for (int p = 0; p < rows; p++, codes += l->inputs)
            mps_centre(&l->layer, codes, l->inputs, patches + p * row);
        multiply(&l->layer, scratch, 0, l->outputs, l->inputs, patches, rows, output,
                 (size_t)first * (size_t)l->outputs, (size_t)l->outputs);
    }
}
