/* Depthwise convolution, 16 channels at a time. The lines of the image that one output line reads
   are kept as codes - offset in a ring, padded with the zero point at both ends, so that no place
   is a border; each is copied once. */
#include "lines.h"
#include "rescaling.h"
#include "unpacking.h"

static int at_most(int x, int limit) { return x < limit ? x : limit; }

/* The weights of `count` channels from `first` on, [tap][channel], and zeros. */
static void unpack_taps(const mps_layer *layer, int first, int count, int taps, int8_t *weights) {
    const size_t start = (size_t)first * (size_t)taps;
    memset(weights, 0, (MPS_TAPS + 1) * MPS_WIDTH);
    if (count == MPS_WIDTH) {
        mps_unpack(layer->weights, layer->bits, start, taps * MPS_WIDTH, weights);
        return;
    }
    for (int t = 0; t < taps; t++)
        mps_unpack(layer->weights, layer->bits, start + (size_t)(t * count), count,
                   weights + t * MPS_WIDTH);
}

/* `count` packed codes, 16 at most, at each of `places` places, `step` bytes from one to the next
   -> 16 bytes for each. */
static void spread_places(mps_type type, const unsigned char *packed, size_t step, int count,
                          int places, unsigned char *codes) {
    if (type == MPS_U4 && count == 16)
        for (; places > 0; places--, packed += step, codes += 16)
            mps_spread_4(packed, 16, codes);
    else
        for (; places > 0; places--, packed += step, codes += 16)
            mps_spread(type, packed, count, codes);
}

/* Line `sy` of the image, from column -left on, `columns` of 16 channels from `first` on. */
static void copy_line(const mps_convolution *c, const unsigned char *image, int first, int count,
                      int sy, int columns, int8_t *line) {
    const mps_type type = c->layer.input_type;
    const int from = at_most(c->left, columns), to = at_most(c->left + c->width, columns);
    const int flip = c->layer.offset;
    const int8_t zero = (int8_t)(c->layer.input_zero - flip);
    const unsigned char *codes;
    size_t at;
    if (sy < 0 || sy >= c->height) {
        memset(line, zero, (size_t)(columns * MPS_WIDTH));
        return;
    }
    memset(line, zero, (size_t)(from * MPS_WIDTH));
    at = (size_t)sy * (size_t)c->width * (size_t)c->channels + (size_t)first;
    codes = image + at;
    if (mps_is_packed(type)) /* whose offset is 0 */
        spread_places(type, image + mps_bytes_of(type, at), mps_bytes_of(type, (size_t)c->channels),
                      count, to - from, (unsigned char *)line + from * MPS_WIDTH);
    else if (count == MPS_WIDTH)
        mps_copy_places(codes, (size_t)c->channels, flip, to - from, line + from * MPS_WIDTH);
    else
        for (int x = from; x < to; x++, codes += c->channels)
            for (int i = 0; i < count; i++)
                line[x * MPS_WIDTH + i] = (int8_t)(codes[i] - flip);
    memset(line + to * MPS_WIDTH, zero, (size_t)((columns - to) * MPS_WIDTH));
}

/* Where the taps of output column 0 lie, for the line whose first line of input is in slot `slot`.
 */
static void place_taps(const mps_convolution *c, const int8_t *ring, int lines, int columns,
                       int slot, const int8_t **taps) {
    for (int ky = 0; ky < c->kernel_height; ky++) {
        const int8_t *place = ring + slot * columns * MPS_WIDTH;
        for (int kx = 0; kx < c->kernel_width; kx++, place += c->dilation_x * MPS_WIDTH)
            *taps++ = place;
        slot += c->dilation_y;
        if (slot >= lines)
            slot -= lines;
    }
    *taps = taps[-1];
}

/* A line of 16 channels at once, where there is such a way; packed codes by way of `bytes`, of
   which there are MPS_STRETCH * MPS_WIDTH. */
static int finish_line(const mps_convolution *c, const mps_constants *constants,
                       const int8_t *weights, const int8_t **places, int taps, unsigned char *bytes,
                       void *output, size_t at) {
    const mps_layer *layer = &c->layer;
    const mps_type type = layer->output_type;
    const size_t step = (size_t)(c->stride_x * MPS_WIDTH), apart = (size_t)c->outputs;
    if (!mps_is_packed(type))
        return mps_line_to_bytes(layer, constants, weights, places, taps, step, c->output_width,
                                 (unsigned char *)output + at, apart);
    for (int x = 0; x < c->output_width; x += MPS_STRETCH, at += MPS_STRETCH * apart) {
        const int some = at_most(MPS_STRETCH, c->output_width - x);
        if (!mps_line_to_bytes(layer, constants, weights, places, taps, step, some, bytes,
                               MPS_WIDTH))
            return 0;
        for (int p = 0; p < some; p++)
            mps_pack_rows(bytes + p * MPS_WIDTH, 2, type, output, at + (size_t)p * apart, MPS_TILE);
        for (int t = 0; t <= taps; t++)
            places[t] += (size_t)some * step;
    }
    return 1;
}

static void convolve_tile(const mps_convolution *c, int8_t *ring, const unsigned char *input,
                          int first, int count, const void *addend, void *output) {
    const mps_layer *layer = &c->layer;
    const int taps = c->kernel_height * c->kernel_width;
    const int lines = (c->kernel_height - 1) * c->dilation_y + 1;
    const int columns =
        (c->output_width - 1) * c->stride_x + (c->kernel_width - 1) * c->dilation_x + 1;
    const size_t step = (size_t)(c->stride_x * MPS_WIDTH);
    int8_t weights[(MPS_TAPS + 1) * MPS_WIDTH];
    const int8_t *places[MPS_TAPS + 1];
    mps_constants constants[2];
    int32_t sums[2][MPS_STRETCH * MPS_TILE];
    int next = 0; /* the first line, from the top, that is not in the ring */
    int filled = 0, done = 0;
    unpack_taps(layer, first, count, taps, weights);
    for (int half = 0; half < 2; half++) {
        const int channels = count - half * MPS_TILE;
        constants[half] = mps_constants_of(layer, first + half * MPS_TILE,
                                           channels < 0 ? 0 : at_most(channels, MPS_TILE));
    }
    for (int y = 0; y < c->output_height; y++) {
        const int top = y * c->stride_y;
        for (next = next < top ? top : next; next < top + lines; next++)
            copy_line(c, input, first, count, next - c->top, columns,
                      ring + next % lines * columns * MPS_WIDTH);
        place_taps(c, ring, lines, columns, top % lines, places);
        if (count == MPS_WIDTH &&
            finish_line(c, constants, weights, places, taps, (unsigned char *)sums, output,
                        (size_t)(y * c->output_width) * (size_t)c->outputs + (size_t)first))
            continue;
        for (int x = 0; x < c->output_width;) {
            const int some = at_most(MPS_STRETCH - filled, c->output_width - x);
            mps_line(layer->run, weights, places, taps, step, (size_t)x * step, some,
                     sums[0] + filled * MPS_TILE, sums[1] + filled * MPS_TILE);
            x += some, filled += some;
            if (filled < MPS_STRETCH && done + filled < c->output_height * c->output_width)
                continue;
            for (int half = 0; half < 2 && half * MPS_TILE < count; half++)
                mps_finish_rows(layer, &constants[half], sums[half], filled,
                                at_most(MPS_TILE, count - half * MPS_TILE), addend, output,
                                (size_t)done * (size_t)c->outputs +
                                    (size_t)(first + half * MPS_TILE),
                                (size_t)c->outputs);
            done += filled, filled = 0;
        }
    }
}

void mps_convolve_depthwise(const mps_convolution *c, void *scratch, const void *input,
                            const void *addend, void *output) {
    for (int first = 0; first < c->outputs; first += MPS_WIDTH)
        convolve_tile(c, scratch, input, first, at_most(MPS_WIDTH, c->outputs - first), addend,
                      output);
}
