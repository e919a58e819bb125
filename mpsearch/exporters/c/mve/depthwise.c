/* Depthwise convolution for Helium, 16 channels at a time. The lines of the image that one output
   line reads are kept as codes - offset in a ring, padded with the zero point at both ends, so that
   no place is a border; each is copied once.

   Products have 16 bits, of which `run` can be added before they need 32. Long products take the
   even or the odd lanes, so that the four vectors of 32-bit sums hold the channels 0, 4, 8, 12 and
   1, 5, 9, 13 and so on: as bytes one beside the other they are in order again. */
#include "finishing.h"

#define WIDTH 16
#define TAPS 64 /* MPS_TAPS of the portable kernels, _MOST_TAPS in kernels.py */

/* What the channels of a tile need: vector i has channels i, i + 4, i + 8, i + 12. */
typedef struct {
    int32_t base[WIDTH], multiplier[WIDTH], shift[WIDTH];
    uint8_t low[WIDTH], high[WIDTH]; /* of bytes */
} tile_constants;

static int lane_of(int channel) { return channel % 4 * 4 + channel / 4; }

static void make_constants(const mps_layer *layer, int first, int count, tile_constants *to) {
    int32_t scratch[WIDTH + WIDTH / 4];
    const mps_factors f = mps_factors_of(layer, first, count, scratch);
    memset(to, 0, sizeof *to);
    memset(to->low, (int)layer->low, WIDTH), memset(to->high, (int)layer->high, WIDTH);
    for (int i = 0; i < count; i++) {
        to->base[lane_of(i)] = layer->base ? layer->base[first + i] : 0;
        to->multiplier[lane_of(i)] = f.multipliers[i];
        to->shift[lane_of(i)] = f.shifts[i];
    }
}

/* The weights of `count` channels from `first` on, [tap][16 channels]; what is beyond `count` is
   never stored. */
static const int8_t *unpack_taps(const mps_layer *layer, int first, int count, int taps,
                                 int8_t *weights) {
    const size_t start = (size_t)first * (size_t)taps; /* a multiple of 8 */
    if (layer->bits == 8 && count == WIDTH)
        return (const int8_t *)layer->weights + start;
    mps_unpack(layer->weights + start / 8 * (size_t)layer->bits, layer->bits, taps * count,
               weights);
    for (int t = taps - 1; t > 0 && count < WIDTH; t--)
        memmove(weights + t * WIDTH, weights + t * count, (size_t)count);
    return weights;
}

/* Line `sy` of the image, from column -left on, `columns` of 16 channels from `first` on. */
static void copy_line(const mps_convolution *c, const void *image, int first, int count, int sy,
                      int columns, int8_t *line) {
    const mps_layer *layer = &c->layer;
    const int from = mps_at_most(c->left, columns), to = mps_at_most(c->left + c->width, columns);
    const int zero = layer->input_zero - layer->offset;
    const size_t at = (size_t)sy * (size_t)c->width * (size_t)c->channels + (size_t)first;
    if (sy < 0 || sy >= c->height) {
        mps_fill_bytes(line, columns * WIDTH, zero);
        return;
    }
    mps_fill_bytes(line, from * WIDTH, zero);
    if (layer->input_type == MPS_U8) {
        const uint8_t *codes = (const uint8_t *)image + at;
        int8_t *place = line + from * WIDTH;
        __asm__ volatile(
            "wls lr, %[places], 2f\n"
            "1: vpst\n"
            "vldrbt.8 q0, [%[codes]]\n"
            "veor q0, q0, %q[flip]\n"
            "add %[codes], %[codes], %[channels]\n"
            "vstrb.8 q0, [%[place]], #16\n"
            "le lr, 1b\n"
            "2:"
            : [codes] "+r"(codes), [place] "+r"(place)
            : [places] "r"(to - from), [channels] "r"(c->channels),
              [flip] "w"(vdupq_n_u8((uint8_t)layer->offset)), [some] "Up"(vctp8q((uint32_t)count))
            : "lr", "q0", "memory");
    } else {
        for (int x = from; x < to; x++)
            mps_take(layer, image, at + (size_t)(x - from) * (size_t)c->channels, count,
                     line + x * WIDTH);
    }
    mps_fill_bytes(line + to * WIDTH, (columns - to) * WIDTH, zero);
}

/* 32-bit sums of 16 channels, vector by vector as the constants. */
typedef struct {
    int32x4_t a, b, c, d;
} tile_sums;

/* Codes in q0 and weights in q1 -> their products, in q2 and q3 or added to these; there are eight
   vectors, so that the weights are loaded twice. Then these to the sums. */
#define FIRST                \
    "vmullb.s8 q2, q0, q1\n" \
    "vmullt.s8 q3, q0, q1\n"
#define NEXT(AGAIN)                                        \
    "vmullb.s8 q1, q0, q1\n"                               \
    "vadd.i16 q2, q2, q1\n" AGAIN "vmullt.s8 q0, q0, q1\n" \
    "vadd.i16 q3, q3, q0\n"
#define WIDEN                     \
    "vmovlb.s16 q0, q2\n"         \
    "vmovlb.s16 q1, q3\n"         \
    "vadd.i32 %q[a], %q[a], q0\n" \
    "vadd.i32 %q[b], %q[b], q1\n" \
    "vmovlt.s16 q0, q2\n"         \
    "vmovlt.s16 q1, q3\n"         \
    "vadd.i32 %q[c], %q[c], q0\n" \
    "vadd.i32 %q[d], %q[d], q1\n"
#define SUMS [a] "+w"(s->a), [b] "+w"(s->b), [c] "+w"(s->c), [d] "+w"(s->d)

/* Any kernel: *places + at is where the codes of a tap lie. */
static inline MPS_INLINE void multiply_taps(const int8_t *weights, const int8_t *const *places,
                                            int taps, int run, size_t at, tile_sums *s) {
    for (int some; taps > 0; taps -= some) {
        const int8_t *place;
        some = mps_at_most(taps, run);
        __asm__("ldr %[place], [%[places]], #4\n"
                "add %[place], %[place], %[at]\n"
                "vldrb.8 q0, [%[place]]\n"
                "vldrb.8 q1, [%[weights]], #16\n" FIRST "wls lr, %[more], 2f\n"
                "1: ldr %[place], [%[places]], #4\n"
                "add %[place], %[place], %[at]\n"
                "vldrb.8 q0, [%[place]]\n"
                "vldrb.8 q1, [%[weights]]\n" NEXT("vldrb.8 q1, [%[weights]], #16\n") "le lr, 1b\n"
                                                                                     "2:" WIDEN
                : SUMS, [place] "=&r"(place), [places] "+r"(places), [weights] "+r"(weights)
                : [more] "r"(some - 1), [at] "r"(at)
                : "lr", "q0", "q1", "q2", "q3", "memory");
    }
}

/* Sums -> what is stored. */
static MPS_APART void store(const mps_layer *layer, const mps_parts *parts, const tile_constants *t,
                            const tile_sums *s, int count, const void *addend, void *output,
                            size_t at) {
    int32_t codes[WIDTH];
    int32x4x4_t x;
    x.val[0] = mps_rescaled(layer, s->a, vldrwq_s32(t->multiplier), vldrwq_s32(t->shift));
    x.val[1] = mps_rescaled(layer, s->b, vldrwq_s32(t->multiplier + 4), vldrwq_s32(t->shift + 4));
    x.val[2] = mps_rescaled(layer, s->c, vldrwq_s32(t->multiplier + 8), vldrwq_s32(t->shift + 8));
    x.val[3] = mps_rescaled(layer, s->d, vldrwq_s32(t->multiplier + 12), vldrwq_s32(t->shift + 12));
    vst4q_s32(codes, x);
    for (int i = 0; i < count; i += MPS_LANES)
        mps_write(layer, parts, vldrwq_s32(codes + i), addend, output, at + (size_t)i,
                  mps_at_most(MPS_LANES, count - i));
}

/* A line of `columns` places with a kernel of 3x3, columns side by side: where two products fit 16
   bits, or all nine; half up, to bytes. The vectors are narrowed so that they are in order again.
 */
#define CODES(PLACE) "vldrb.8 q0, [%[" PLACE "]\n"
#define WEIGHTS(TAP) "vldrb.8 q1, [%[weights], #" TAP "]\n"
#define FIRST_AT(PLACE, TAP) CODES(PLACE) WEIGHTS(TAP) FIRST
#define NEXT_AT(PLACE, TAP) CODES(PLACE) WEIGHTS(TAP) NEXT(WEIGHTS(TAP))
#define SCALE(SUM, VECTOR)                       \
    "vldrw.32 q0, [%[t], #64+" VECTOR "]\n"      \
    "vldrw.32 q1, [%[t], #128+" VECTOR "]\n"     \
    "vqdmulh.s32 %q[" SUM "], %q[" SUM "], q0\n" \
    "vrshl.s32 %q[" SUM "], %q[" SUM "], q1\n"
#define LINE(PRODUCTS)                                                                          \
    __asm__ volatile(                                                                           \
        "dls lr, %[columns]\n"                                                                  \
        "1: vldrw.32 %q[a], [%[t]]\n"                                                           \
        "vldrw.32 %q[b], [%[t], #16]\n"                                                         \
        "vldrw.32 %q[c], [%[t], #32]\n"                                                         \
        "vldrw.32 %q[d], [%[t], #48]\n" PRODUCTS "add %[top], %[top], %[step]\n"                \
        "add %[middle], %[middle], %[step]\n"                                                   \
        "add %[bottom], %[bottom], %[step]\n" SCALE("a", "0") SCALE("b", "16") SCALE("c", "32") \
            SCALE("d", "48") "vqmovnb.s32 %q[a], %q[a]\n"                                       \
                             "vqmovnb.s32 %q[b], %q[b]\n"                                       \
                             "vqmovnt.s32 %q[a], %q[c]\n"                                       \
                             "vqmovnt.s32 %q[b], %q[d]\n"                                       \
                             "vqadd.s16 %q[a], %q[a], %[zero]\n"                                \
                             "vqadd.s16 %q[b], %q[b], %[zero]\n"                                \
                             "vqmovunb.s16 q0, %q[a]\n"                                         \
                             "vqmovunt.s16 q0, %q[b]\n"                                         \
                             "vldrw.32 q1, [%[t], #192]\n"                                      \
                             "vldrw.32 q2, [%[t], #208]\n"                                      \
                             "vmax.u8 q0, q0, q1\n"                                             \
                             "vmin.u8 q0, q0, q2\n"                                             \
                             "vpst\n"                                                           \
                             "vstrbt.8 q0, [%[to]]\n"                                           \
                             "add %[to], %[to], %[stride]\n"                                    \
                             "le lr, 1b"                                                        \
        : [top] "+r"(top), [middle] "+r"(middle), [bottom] "+r"(bottom), [to] "+r"(to),         \
          [a] "=&w"(s.a), [b] "=&w"(s.b), [c] "=&w"(s.c), [d] "=&w"(s.d)                        \
        : [t] "r"(t), [weights] "r"(weights), [step] "r"(step), [some] "Up"(some),              \
          [columns] "r"(columns), [stride] "r"(c->outputs), [zero] "r"(layer->output_zero)      \
        : "lr", "q0", "q1", "q2", "q3", "memory")

static MPS_APART void convolve_line(const mps_convolution *c, const tile_constants *t,
                                    const int8_t *weights, const int8_t *const *rows, int count,
                                    uint8_t *to) {
    const mps_layer *layer = &c->layer;
    const int8_t *top = rows[0], *middle = rows[1], *bottom = rows[2];
    const int step = c->stride_x * WIDTH, columns = c->output_width;
    const mve_pred16_t some = vctp8q((uint32_t)count);
    tile_sums s;
    weights += 4 * WIDTH;
    if (layer->run >= 9)
        LINE(FIRST_AT("top]", "-64") NEXT_AT("top], #16", "-48") NEXT_AT("top], #32", "-32")
                 NEXT_AT("middle]", "-16") NEXT_AT("middle], #16", "0")
                     NEXT_AT("middle], #32", "16") NEXT_AT("bottom]", "32")
                         NEXT_AT("bottom], #16", "48") NEXT_AT("bottom], #32", "64") WIDEN);
    else
        LINE(FIRST_AT("top]", "-64") NEXT_AT("top], #16", "-48") WIDEN FIRST_AT("top], #32", "-32")
                 NEXT_AT("middle]", "-16") WIDEN FIRST_AT("middle], #16", "0")
                     NEXT_AT("middle], #32", "16") WIDEN FIRST_AT("bottom]", "32")
                         NEXT_AT("bottom], #16", "48") WIDEN FIRST_AT("bottom], #32", "64") WIDEN);
}

static void convolve_tile(const mps_convolution *c, int8_t *ring, const void *input, int first,
                          int count, const mps_parts *parts, const void *addend, void *output) {
    const mps_layer *layer = &c->layer;
    const int taps = c->kernel_height * c->kernel_width;
    const int lines = (c->kernel_height - 1) * c->dilation_y + 1;
    const int columns =
        (c->output_width - 1) * c->stride_x + (c->kernel_width - 1) * c->dilation_x + 1;
    const int usual =
        mps_is_usual(layer) && c->kernel_height == 3 && c->kernel_width == 3 && c->dilation_x == 1;
    int32_t unpacked[(TAPS * WIDTH + MPS_UNPACKED_SLACK) / 4];
    const int8_t *weights = unpack_taps(layer, first, count, taps, (int8_t *)unpacked);
    const int8_t *rows[TAPS], *places[TAPS];
    tile_constants constants;
    size_t to = (size_t)first;
    int next = 0; /* the first line, from the top, that is not in the ring */
    make_constants(layer, first, count, &constants);
    for (int y = 0; y < c->output_height; y++) {
        const int top = y * c->stride_y;
        for (next = next < top ? top : next; next < top + lines; next++)
            copy_line(c, input, first, count, next - c->top, columns,
                      ring + next % lines * columns * WIDTH);
        for (int ky = 0, slot = top % lines; ky < c->kernel_height; ky++) {
            rows[ky] = ring + slot * columns * WIDTH;
            slot += c->dilation_y;
            if (slot >= lines)
                slot -= lines;
        }
        if (usual) {
            convolve_line(c, &constants, weights, rows, count, (uint8_t *)output + to);
            to += (size_t)c->output_width * (size_t)c->outputs;
            continue;
        }
        for (int tap = 0; tap < taps; tap++)
            places[tap] =
                rows[tap / c->kernel_width] + tap % c->kernel_width * c->dilation_x * WIDTH;
        for (int x = 0; x < c->output_width; x++, to += (size_t)c->outputs) {
            tile_sums sums;
            sums.a = vldrwq_s32(constants.base), sums.b = vldrwq_s32(constants.base + 4);
            sums.c = vldrwq_s32(constants.base + 8), sums.d = vldrwq_s32(constants.base + 12);
            multiply_taps(weights, places, taps, layer->run, (size_t)(x * c->stride_x * WIDTH),
                          &sums);
            store(layer, parts, &constants, &sums, count, addend, output, to);
        }
    }
}

void mps_convolve_depthwise(const mps_convolution *c, void *scratch, const void *input,
                            const void *addend, void *output) {
    mps_parts parts = {0, 0, 0, 0, 0};
    if (c->layer.sum)
        parts = mps_parts_of(c->layer.sum);
    for (int first = 0; first < c->outputs; first += WIDTH)
        convolve_tile(c, scratch, input, first, mps_at_most(WIDTH, c->outputs - first), &parts,
                      addend, output);
}
