/* Convolution and linear layers as products with blocks of patches, for weights and codes of up to
   8 bits. A patch holds the codes that one output position sees, minus `offset`, which makes them
   signed bytes: sum w * (q - z) = sum w * (q - offset) + (offset - z) * sum w, and the last part is
   in `base`. Padded places hold z - offset. */
#include "products.h"
#include "rescaling.h"
#include "unpacking.h"

#define CHUNK 256  /* terms whose weights are unpacked at once; a multiple of MPS_GROUP */
#define MOST 100   /* positions of a block; _MOST_POSITIONS in kernels.py */
#define STRETCH 64 /* output columns for which lines are kept; STRETCH in kernels.py */
#define SLACK 16   /* bytes that are copied at once */

static int at_most(int x, int limit) { return x < limit ? x : limit; }

static int whole_groups(int terms) { return (terms + MPS_GROUP - 1) / MPS_GROUP; }

/* `count` channels' weights for terms k ... k + terms - 1, as mps_products reads them: filled up
   with zeros to 8 channels and to whole groups. `start` is the first code of the tile. */
static void unpack_tile(const mps_layer *layer, size_t start, int count, int k, int terms,
                        int8_t *weights) {
    const int whole = terms / MPS_GROUP, rest = terms % MPS_GROUP;
    const size_t at = start + (size_t)count * (size_t)k;
    int8_t last[MPS_TILE * MPS_GROUP];
    const int8_t *end = last;
    if (count == MPS_TILE) {
        mps_unpack(layer->weights, layer->bits, at, MPS_TILE * MPS_GROUP * whole, weights);
    } else {
        memset(weights, 0, (size_t)(MPS_TILE * MPS_GROUP * whole));
        for (int i = 0; i < whole; i++)
            mps_unpack(layer->weights, layer->bits, at + (size_t)(i * count * MPS_GROUP),
                       count * MPS_GROUP, weights + i * MPS_TILE * MPS_GROUP);
    }
    if (rest == 0)
        return;
    weights += whole * MPS_TILE * MPS_GROUP;
    mps_unpack(layer->weights, layer->bits, at + (size_t)(whole * count * MPS_GROUP), count * rest,
               last);
    memset(weights, 0, MPS_TILE * MPS_GROUP);
    for (int channel = 0; channel < count; channel++, weights += MPS_GROUP, end += rest) {
        weights[0] = end[0];
        if (rest > 1)
            weights[1] = end[1];
        if (rest > 2)
            weights[2] = end[2];
    }
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
   at + channel + position * stride; patches are `row` bytes apart. */
static void multiply(const mps_layer *layer, const unsigned char *constants, int first, int outputs,
                     int terms, const unsigned char *patches, size_t row, int positions,
                     const void *addend, void *output, size_t at, size_t stride) {
    const size_t width = (size_t)mps_code_bytes(layer);
    const mps_type type = layer->output_type;
    const int packs = mps_is_packed(type);
    int8_t unpacked[CHUNK * MPS_TILE];
    int32_t sums[(MOST + 3) * MPS_TILE]; /* up to a multiple of four */
    unsigned char *const bytes = (unsigned char *)sums;
    for (int o = 0; o < outputs; o += MPS_TILE, constants += sizeof(mps_constants)) {
        const int count = at_most(MPS_TILE, outputs - o);
        const size_t start = (size_t)(first + o) * (size_t)terms;
        const int in_place = layer->bits == 8 && count == MPS_TILE && terms % MPS_GROUP == 0;
        mps_constants tile;
        memcpy(&tile, constants, sizeof tile);
        if (count == MPS_TILE && (in_place || terms <= CHUNK)) {
            const int8_t *weights = unpacked;
            const size_t place = at + (size_t)(first + o);
            unsigned char *to = packs ? bytes : (unsigned char *)output + place;
            if (in_place)
                weights = (const int8_t *)layer->weights + start;
            else
                unpack_tile(layer, start, count, 0, terms, unpacked);
            if ((!packs || mps_rows_are_whole(type, place, stride)) &&
                mps_products_to_bytes(layer, &tile, weights, patches, row, positions,
                                      whole_groups(terms), to, packs ? MPS_TILE : stride)) {
                if (packs)
                    mps_pack_rows(bytes, positions, type, output, place, stride);
                continue;
            }
        }
        for (int k = 0; k < terms;) {
            const int some = in_place ? terms : at_most(CHUNK, terms - k);
            const int8_t *weights = unpacked;
            if (in_place)
                weights = (const int8_t *)layer->weights + start;
            else
                unpack_tile(layer, start, count, k, some, unpacked);
            mps_products(layer, weights, patches + (size_t)k * width, row, positions,
                         whole_groups(some), sums, k > 0);
            k += some;
        }
        mps_finish_rows(layer, &tile, sums, positions, count, addend, output,
                        at + (size_t)(first + o), stride);
    }
}

/* Codes first ... of the input as codes - offset; packed ones begin a byte, and their offset is 0.
 */
static void centre(const mps_layer *layer, const unsigned char *input, size_t first, int count,
                   unsigned char *to) {
    if (mps_is_packed(layer->input_type))
        mps_spread(layer->input_type, input + mps_bytes_of(layer->input_type, first), count, to);
    else
        mps_centre(layer, input + first, count, to);
}

/* `count` padded places. */
static void pad(const mps_layer *layer, int count, unsigned char *to) {
    const int16_t zero = (int16_t)(layer->input_zero - mps_patch_offset(layer));
    if (mps_code_bytes(layer) == 1)
        memset(to, zero, (size_t)count);
    else
        for (int i = 0; i < count; i++, to += 2)
            memcpy(to, &zero, 2);
}

/* Line `sy` of the image from column `first` on, `columns` of them, as codes - offset. */
static void copy_line(const mps_convolution *c, const unsigned char *image, int sy, int first,
                      int columns, unsigned char *line) {
    const mps_layer *layer = &c->layer;
    const int width = mps_code_bytes(layer) * c->channels;
    int from = first < 0 ? at_most(-first, columns) : 0, to = at_most(c->width - first, columns);
    if (sy < 0 || sy >= c->height || to < from)
        from = to = 0;
    pad(layer, from * c->channels, line);
    if (from < to)
        centre(layer, image, (size_t)((sy * c->width + first + from)) * (size_t)c->channels,
               (to - from) * c->channels, line + from * width);
    pad(layer, (columns - to) * c->channels, line + to * width);
}

/* The shape of the lines that the patches of one output line are taken from. */
typedef struct {
    int stretch; /* output columns at once; lines stay in the ring where this is all of them */
    int columns, lines;
    int line_bytes;
} window;

static window window_of(const mps_convolution *c) {
    window w;
    w.stretch = at_most(c->output_width, STRETCH);
    w.columns = (w.stretch - 1) * c->stride_x + (c->kernel_width - 1) * c->dilation_x + 1;
    w.lines = (c->kernel_height - 1) * c->dilation_y + 1;
    w.line_bytes = w.columns * c->channels * mps_code_bytes(&c->layer);
    return w;
}

/* Where the pieces of patches lie: a row of the kernel is one piece, or else each of its places. */
typedef struct {
    int pieces, size, apart; /* in a row of the kernel */
    int rows, below, ring;   /* a row is `below` the one before, around a ring of that size */
} layout;

static layout layout_of(const mps_convolution *c, const window *w) {
    const int together = c->dilation_x == 1 && c->groups == 1;
    const int width = mps_code_bytes(&c->layer), inputs = c->channels / c->groups;
    layout l;
    l.pieces = together ? 1 : c->kernel_width;
    l.size = (together ? c->kernel_width : 1) * inputs * width;
    l.apart = c->dilation_x * c->channels * width;
    l.rows = c->kernel_height;
    l.below = c->dilation_y * w->line_bytes;
    l.ring = w->lines * w->line_bytes;
    return l;
}

/* `size` bytes to every patch; SIZE bytes are copied at once, which may be up to SLACK more: they
   are written again by the next piece, or lie between two patches. */
#define COPY_PIECES(SIZE)                                       \
    for (; positions > 0; positions--, from += step, to += row) \
        for (size_t i = 0; i < size; i += SIZE)                 \
            memcpy(to + i, from + i, SIZE);

static MPS_APART void copy_pieces(size_t size, const unsigned char *from, size_t step,
                                  unsigned char *to, size_t row, int positions) {
    if (size <= 4) {
        size = 4; /* no loop */
        COPY_PIECES(4)
    } else if (size <= 16) {
        size = 16;
        COPY_PIECES(16)
    } else {
        COPY_PIECES(16)
    }
}

/* Patches of `positions` columns, `step` bytes from one to the next. */
static void gather(const layout *l, const unsigned char *ring, int start, int step, int positions,
                   unsigned char *patch, size_t row) {
    for (int ky = 0; ky < l->rows; ky++, start += l->below) {
        if (start >= l->ring)
            start -= l->ring;
        for (int kx = 0; kx < l->pieces; kx++, patch += l->size)
            copy_pieces((size_t)l->size, ring + start + kx * l->apart, (size_t)step, patch, row,
                        positions);
    }
}

/* One group of channels; `ring` is behind the patches. */
static void convolve_group(const mps_convolution *c, int group, const unsigned char *constants,
                           unsigned char *patches, const unsigned char *image, const void *addend,
                           void *output) {
    const mps_layer *layer = &c->layer;
    const int outputs = c->outputs / c->groups;
    const int terms = c->channels / c->groups * c->kernel_height * c->kernel_width;
    const int row = whole_groups(terms) * MPS_GROUP * mps_code_bytes(layer) + SLACK;
    const int place = c->channels * mps_code_bytes(layer); /* bytes of all channels */
    const window w = window_of(c);
    const layout l = layout_of(c, &w);
    unsigned char *ring = patches + c->block * row;
    int filled = 0, done = 0, next = 0; /* `next`: the first line, from the top, not in the ring */
    for (int y = 0; y < c->output_height; y++) {
        const int top = y * c->stride_y;
        for (int x = 0; x < c->output_width; x += w.stretch) {
            const int stretch = at_most(w.stretch, c->output_width - x);
            if (next < top || stretch < c->output_width)
                next = top;
            for (; next < top + w.lines; next++)
                copy_line(c, image, next - c->top, x * c->stride_x - c->left, w.columns,
                          ring + next % w.lines * w.line_bytes);
            for (int p = 0; p < stretch;) {
                const int some = at_most(stretch - p, c->block - filled);
                gather(&l, ring,
                       top % w.lines * w.line_bytes + p * c->stride_x * place +
                           group * (place / c->groups),
                       c->stride_x * place, some, patches + filled * row, (size_t)row);
                p += some, filled += some;
                if (filled < c->block && done + filled < c->output_height * c->output_width)
                    continue;
                multiply(layer, constants, group * outputs, outputs, terms, patches, (size_t)row,
                         filled, addend, output, (size_t)done * (size_t)c->outputs,
                         (size_t)c->outputs);
                done += filled, filled = 0;
            }
        }
    }
}

/* 1x1 and no steps: the image is a matrix already. */
static void convolve_points(const mps_convolution *c, const unsigned char *constants,
                            unsigned char *patches, const unsigned char *image, const void *addend,
                            void *output) {
    const int count = c->output_height * c->output_width;
    for (int first = 0; first < count; first += c->block) {
        const int positions = at_most(c->block, count - first);
        centre(&c->layer, image, (size_t)first * (size_t)c->channels, positions * c->channels,
               patches);
        multiply(&c->layer, constants, 0, c->outputs, c->channels, patches,
                 (size_t)(c->channels * mps_code_bytes(&c->layer)), positions, addend, output,
                 (size_t)first * (size_t)c->outputs, (size_t)c->outputs);
    }
}

void mps_convolve_patches(const mps_convolution *c, void *scratch, const void *input,
                          const void *addend, void *output) {
    const int outputs = c->outputs / c->groups;
    const int points = c->kernel_height == 1 && c->kernel_width == 1 && c->groups == 1 &&
                       c->output_height == c->height && c->output_width == c->width &&
                       c->stride_y == 1 && c->stride_x == 1 && c->channels % MPS_GROUP == 0;
    for (int group = 0; group < c->groups; group++) {
        unsigned char *patches = make_constants(&c->layer, group * outputs, outputs, scratch);
        if (points)
            convolve_points(c, scratch, patches, input, addend, output);
        else
            convolve_group(c, group, scratch, patches, input, addend, output);
    }
}

void mps_multiply_patches(const mps_linear *l, void *scratch, const void *input, const void *addend,
                          void *output) {
    const int row = whole_groups(l->inputs) * MPS_GROUP * mps_code_bytes(&l->layer);
    unsigned char *patches = make_constants(&l->layer, 0, l->outputs, scratch);
    for (int first = 0; first < l->rows; first += l->block) {
        const int rows = at_most(l->block, l->rows - first);
        for (int p = 0; p < rows; p++)
            centre(&l->layer, input, (size_t)(first + p) * (size_t)l->inputs, l->inputs,
                   patches + p * row);
        multiply(&l->layer, scratch, 0, l->outputs, l->inputs, patches, (size_t)row, rows, addend,
                 output, (size_t)first * (size_t)l->outputs, (size_t)l->outputs);
    }
}
