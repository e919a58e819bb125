/* Convolution and linear layers for Helium, for weights and codes of up to 8 bits: dot products of
   16 terms at a time. A patch holds the codes that one output position sees, minus `offset`, which
   makes them signed bytes; padded places hold zero point - offset. Weights are row after row, in
   the patches' order, and those of less than 8 bits are unpacked once for a block of patches. */
#include "finishing.h"

#define MOST 48   /* positions of a block; _MOST in helium.py */
#define CHUNK 512 /* terms whose weights are unpacked at once; _CHUNK in helium.py */
#define APART (CHUNK + 8)
#define FEW 12 /* positions of a block where there are more terms; _FEW in helium.py */

/* 2 outputs at 3, 6, … positions, `row` bytes apart: sums[position][output] = first + weights *
   codes. The order of the fields is known to `multiply_pair`. */
typedef struct {
    const int8_t *weights[2];
    const int8_t *patches;
    ptrdiff_t row;
    int32_t first[2];
    int terms;
    int32_t *sums, *end; /* rows of MPS_LANES */
} pair;

/* In assembly as a whole, for it takes all registers: six sums in even ones, as the instruction
   wants them, and five pointers; 12 instructions for 96 products. */
static __attribute__((naked, noinline)) void multiply_pair(pair *p) {
    __asm__("push {r4-r11, lr}\n"
            "mov r12, r0\n"
            "2: ldrd r1, r3, [r12]\n"  /* weights */
            "ldrd r5, r9, [r12, #8]\n" /* patches, row */
            "add r7, r5, r9\n"
            "add r11, r9, r9, lsl #1\n"
            "add r9, r9, r7\n"
            "add r11, r11, r5\n"
            "str r11, [r12, #8]\n"
            "ldrd r0, r2, [r12, #16]\n" /* first */
            "mov r4, r0\n"
            "mov r6, r2\n"
            "mov r8, r0\n"
            "mov r10, r2\n"
            "ldrd lr, r11, [r12, #24]\n" /* terms, sums */
            "dlstp.8 lr, lr\n"
            "1: vldrb.8 q0, [r1], #16\n"
            "vldrb.8 q1, [r5], #16\n"
            "vmladava.s8 r0, q0, q1\n"
            "vldrb.8 q2, [r3], #16\n"
            "vmladava.s8 r2, q2, q1\n"
            "vldrb.8 q3, [r7], #16\n"
            "vmladava.s8 r4, q0, q3\n"
            "vldrb.8 q1, [r9], #16\n"
            "vmladava.s8 r6, q2, q3\n"
            "vmladava.s8 r8, q0, q1\n"
            "vmladava.s8 r10, q2, q1\n"
            "letp lr, 1b\n"
            "strd r0, r2, [r11], #16\n"
            "strd r4, r6, [r11], #16\n"
            "strd r8, r10, [r11], #16\n"
            "ldr r1, [r12, #32]\n" /* end */
            "str r11, [r12, #28]\n"
            "cmp r11, r1\n"
            "bne 2b\n"
            "pop {r4-r11, pc}\n");
    (void)p;
}

/* Patches of up to 32 terms are filled up with zeros to 16 or 32 bytes. Their codes stay in
   registers: 4 outputs at 3, 6, … positions, sums[position][output], without base. The weights are
   read as far as patches go. */
#define SHORT 32
typedef struct {
    const int8_t *weights[4];
    const int8_t *patches;
    int32_t *sums, *end;
} four_short;

#define SUM_32(ROW, A, B, C)       \
    "vldrb.8 q6, [" ROW "]\n"      \
    "vldrb.8 q7, [" ROW ", #16]\n" \
    "vmladav.s8 " A ", q0, q6\n"   \
    "vmladav.s8 " B ", q2, q6\n"   \
    "vmladav.s8 " C ", q4, q6\n"   \
    "vmladava.s8 " A ", q1, q7\n"  \
    "vmladava.s8 " B ", q3, q7\n"  \
    "vmladava.s8 " C ", q5, q7\n"
#define SUM_16(ROW, A, B, C)     \
    "vldrb.8 q3, [" ROW "]\n"    \
    "vmladav.s8 " A ", q0, q3\n" \
    "vmladav.s8 " B ", q1, q3\n" \
    "vmladav.s8 " C ", q2, q3\n"
#define CODES_32              \
    "vldrb.8 q0, [r9]\n"      \
    "vldrb.8 q1, [r9, #16]\n" \
    "vldrb.8 q2, [r9, #32]\n" \
    "vldrb.8 q3, [r9, #48]\n" \
    "vldrb.8 q4, [r9, #64]\n" \
    "vldrb.8 q5, [r9, #80]\n" \
    "add r9, r9, #96\n"
#define CODES_16              \
    "vldrb.8 q0, [r9]\n"      \
    "vldrb.8 q1, [r9, #16]\n" \
    "vldrb.8 q2, [r9, #32]\n" \
    "add r9, r9, #48\n"
#define FOUR_SHORT(CODES, SUM)                                                           \
    __asm__("push {r4-r11, lr}\n"                                                        \
            "vpush {d8-d15}\n"                                                           \
            "ldrd r1, r3, [r0]\n"                                                        \
            "ldrd r5, r7, [r0, #8]\n"                                                    \
            "ldrd r9, r11, [r0, #16]\n"                                                  \
            "ldr r12, [r0, #24]\n"                                                       \
            "1:\n" CODES SUM("r1", "r0", "r4", "r8")                                     \
                SUM("r3", "r2", "r6",                                                    \
                    "r10") "strd r0, r2, [r11]\n"                                        \
                           "strd r4, r6, [r11, #16]\n"                                   \
                           "strd r8, r10, [r11, #32]\n" SUM("r5", "r0", "r4", "r8")      \
                               SUM("r7", "r2", "r6", "r10") "strd r0, r2, [r11, #8]\n"   \
                                                            "strd r4, r6, [r11, #24]\n"  \
                                                            "strd r8, r10, [r11, #40]\n" \
                                                            "add r11, r11, #48\n"        \
                                                            "cmp r11, r12\n"             \
                                                            "bne 1b\n"                   \
                                                            "vpop {d8-d15}\n"            \
                                                            "pop {r4-r11, pc}\n");       \
    (void)p

static __attribute__((naked, noinline)) void multiply_16(const four_short *p) {
    FOUR_SHORT(CODES_16, SUM_16);
}

static __attribute__((naked, noinline)) void multiply_32(const four_short *p) {
    FOUR_SHORT(CODES_32, SUM_32);
}

/* The sums of 4 channels at one position; see multiply_rows. */
static MPS_APART void multiply_four(const int8_t *weights, ptrdiff_t apart, int count,
                                    const int32_t *base, int terms, const int8_t *x,
                                    int32_t *sums) {
    const int8_t *w1 = count > 1 ? weights + apart : weights, *w2 = count > 2 ? w1 + apart : w1;
    const int8_t *w3 = count > 3 ? w2 + apart : w2;
    int32_t a = base ? base[0] : 0, b = base && count > 1 ? base[1] : 0;
    int32_t c = base && count > 2 ? base[2] : 0, d = base && count > 3 ? base[3] : 0;
    __asm__ volatile("dlstp.8 lr, %[terms]\n"
                     "1: vldrb.8 q0, [%[x]], #16\n"
                     "vldrb.8 q1, [%[w0]], #16\n"
                     "vmladava.s8 %[a], q0, q1\n"
                     "vldrb.8 q2, [%[w1]], #16\n"
                     "vmladava.s8 %[b], q0, q2\n"
                     "vldrb.8 q3, [%[w2]], #16\n"
                     "vmladava.s8 %[c], q0, q3\n"
                     "vldrb.8 q1, [%[w3]], #16\n"
                     "vmladava.s8 %[d], q0, q1\n"
                     "letp lr, 1b"
                     : [a] "+Te"(a), [b] "+Te"(b), [c] "+Te"(c), [d] "+Te"(d), [x] "+r"(x),
                       [w0] "+r"(weights), [w1] "+r"(w1), [w2] "+r"(w2), [w3] "+r"(w3)
                     : [terms] "r"(terms)
                     : "lr", "q0", "q1", "q2", "q3", "memory");
    sums[0] = a;
    if (count > 1)
        sums[1] = b;
    if (count > 2)
        sums[2] = c;
    if (count > 3)
        sums[3] = d;
}

/* The sums of `count` <= 4 channels, whose weights are `apart` bytes from each other:
   sums[position][channel] = base + weights * codes, base NULL for none. */
static void multiply_rows(const int8_t *weights, ptrdiff_t apart, int count, const int32_t *base,
                          int terms, const int8_t *patches, ptrdiff_t row, int positions,
                          int32_t *sums) {
    const int threes = positions / 3 * 3;
    pair p;
    if (positions < 3) {
        for (; positions > 0; positions--, patches += row, sums += MPS_LANES)
            multiply_four(weights, apart, count, base, terms, patches, sums);
        return;
    }
    p.row = row, p.terms = terms;
    for (int i = 0; i < count; i += 2, weights += 2 * apart, sums += 2) {
        const int both = i + 1 < count; /* or else the same channel twice */
        p.weights[0] = weights, p.weights[1] = both ? weights + apart : weights;
        p.first[0] = base ? base[i] : 0, p.first[1] = base && both ? base[i + 1] : 0;
        p.patches = patches, p.sums = sums, p.end = sums + threes * MPS_LANES;
        multiply_pair(&p);
        if (threes < positions) { /* the last three, some of them once more */
            p.patches = patches + (positions - 3) * row;
            p.sums = sums + (positions - 3) * MPS_LANES, p.end = p.sums + 3 * MPS_LANES;
            multiply_pair(&p);
        }
    }
}

/* The same for 4 channels, short patches and at least 3 positions, but without base. */
static void multiply_short_rows(const int8_t *weights, int terms, const int8_t *patches, int row,
                                int positions, int32_t *sums) {
    const int threes = positions / 3 * 3;
    four_short p;
    for (int i = 0; i < 4; i++)
        p.weights[i] = weights + i * terms;
    p.patches = patches, p.sums = sums, p.end = sums + threes * MPS_LANES;
    for (int again = threes < positions;; again = 0) {
        (row == SHORT ? multiply_32 : multiply_16)(&p);
        if (!again)
            return;
        p.patches = patches + (positions - 3) * row; /* the last three, some of them once more */
        p.sums = sums + (positions - 3) * MPS_LANES, p.end = p.sums + 3 * MPS_LANES;
    }
}

/* A layer at work on one group of channels. */
typedef struct {
    const mps_layer *layer;
    mps_factors factors;
    mps_parts parts;
    int8_t *unpacked; /* memory for MPS_LANES rows of weights */
    int first, outputs, terms;
    int usual;
    const void *addend;
    void *output;
} work;

/* Rows of 4 sums -> bytes; ADD is what comes first. */
#define FINISH(ADD)                                                                                \
    __asm__ volatile("dls lr, %[positions]\n"                                                      \
                     "1: vldrw.32 q0, [%[sums]], #16\n" ADD "vqdmulh.s32 q0, q0, %q[multiplier]\n" \
                     "vrshl.s32 q0, q0, %q[shift]\n"                                               \
                     "vadd.i32 q0, q0, %[zero]\n"                                                  \
                     "vmax.s32 q0, q0, %q[low]\n"                                                  \
                     "vmin.s32 q0, q0, %q[high]\n"                                                 \
                     "vstrb.32 q0, [%[to]]\n"                                                      \
                     "add %[to], %[to], %[stride]\n"                                               \
                     "le lr, 1b"                                                                   \
                     : [sums] "+r"(sums), [to] "+r"(to)                                            \
                     : [positions] "r"(positions), [stride] "r"(stride),                           \
                       [zero] "r"(layer->output_zero), [multiplier] "w"(multiplier),               \
                       [shift] "w"(shift), [low] "w"(low), [high] "w"(high), [base] "w"(base)      \
                     : "lr", "q0", "memory")

/* Rows of 4 sums -> what is stored; `more` is added first, unless it is NULL. */
static void finish_rows(const work *w, int channel, int count, const int32_t *more,
                        const int32_t *sums, int positions, size_t at, size_t stride) {
    const mps_layer *layer = w->layer;
    const int32x4_t multiplier = vldrwq_s32(w->factors.multipliers + channel);
    const int32x4_t shift = vldrbq_s32(w->factors.shifts + channel);
    const int32x4_t base = more ? vldrwq_s32(more) : vdupq_n_s32(0);
    if (w->usual && count == MPS_LANES) {
        int8_t *to = (int8_t *)w->output + at;
        const int32x4_t low = vdupq_n_s32(layer->low), high = vdupq_n_s32(layer->high);
        if (more)
            FINISH("vadd.i32 q0, q0, %q[base]\n");
        else
            FINISH("");
        return;
    }
    for (; positions > 0; positions--, sums += MPS_LANES, at += stride) {
        const int32x4_t x = vaddq_s32(vldrwq_s32(sums), base);
        mps_write(layer, &w->parts, mps_rescaled(layer, x, multiplier, shift), w->addend, w->output,
                  at, count);
    }
}

/* The same in pieces of CHUNK terms, where there are more and they have to be unpacked. */
static MPS_APART void multiply_chunks(const work *w, int channel, int count, const int32_t *base,
                                      const int8_t *patches, ptrdiff_t row, int positions,
                                      int32_t *sums) {
    const mps_layer *layer = w->layer;
    int32_t more[FEW * MPS_LANES];
    for (int k = 0; k < w->terms; k += CHUNK) {
        const int terms = mps_at_most(CHUNK, w->terms - k);
        for (int i = 0; i < count; i++) { /* rows begin where codes begin, not bytes */
            const size_t at = (size_t)(channel + i) * (size_t)w->terms + (size_t)k;
            const int before = (int)(at % 8);
            mps_unpack(layer->weights + at / 8 * (size_t)layer->bits, layer->bits, before + terms,
                       w->unpacked + 8 + i * APART - before);
        }
        multiply_rows(w->unpacked + 8, APART, count, k ? NULL : base, terms, patches + k, row,
                      positions, k ? more : sums);
        if (k)
            for (int i = 0; i < positions * MPS_LANES; i += MPS_LANES)
                vstrwq_s32(sums + i, vaddq_s32(vldrwq_s32(sums + i), vldrwq_s32(more + i)));
    }
}

/* All outputs of `positions` patches, `row` bytes apart, to elements at + channel + position *
   stride. */
static void multiply(const work *w, const int8_t *patches, int row, int positions, size_t at,
                     size_t stride) {
    const mps_layer *layer = w->layer;
    const int in_place = layer->bits == 8;
    int32_t sums[MOST * MPS_LANES];
    for (int channel = 0; channel < w->outputs; channel += MPS_LANES) {
        const int count = mps_at_most(MPS_LANES, w->outputs - channel), o = w->first + channel;
        const int32_t *base = layer->base ? layer->base + o : NULL, *more = NULL;
        const size_t start = (size_t)o * (size_t)w->terms;
        const int8_t *weights = (const int8_t *)layer->weights + start;
        if (!in_place && w->terms <= CHUNK) {
            mps_unpack(layer->weights + start / 8 * (size_t)layer->bits, layer->bits,
                       (int)(start % 8) + count * w->terms, w->unpacked);
            weights = w->unpacked + start % 8;
        }
        /* as many weights as a short patch has bytes: what lies behind is multiplied with zeros */
        if ((row == SHORT || row == SHORT / 2) && count == MPS_LANES && positions >= 3 &&
            (!in_place || (w->outputs - channel - MPS_LANES) * w->terms >= row - w->terms)) {
            multiply_short_rows(weights, w->terms, patches, row, positions, sums);
            more = base;
        } else if (in_place || w->terms <= CHUNK) {
            multiply_rows(weights, w->terms, count, base, w->terms, patches, row, positions, sums);
        } else {
            multiply_chunks(w, o, count, base, patches, row, positions, sums);
        }
        finish_rows(w, channel, count, more, sums, positions, at + (size_t)o, stride);
    }
}

/* One patch: the places of output position (y, x), `inputs` channels of each from `channel` on. */
static MPS_APART void gather(const mps_convolution *c, const void *image, int y, int x, int channel,
                             int inputs, int8_t *patch) {
    const mps_layer *layer = &c->layer;
    const int zero = layer->input_zero - layer->offset, size = c->kernel_width * inputs;
    const int left = x * c->stride_x - c->left;
    const int inside = left >= 0 && left + (c->kernel_width - 1) * c->dilation_x < c->width;
    const int together = inside && c->dilation_x == 1 && inputs == c->channels;
    int sy = y * c->stride_y - c->top;
    for (int ky = 0; ky < c->kernel_height; ky++, sy += c->dilation_y) {
        const size_t line = (size_t)sy * (size_t)c->width;
        if (sy < 0 || sy >= c->height) {
            mps_fill_bytes(patch, size, zero);
            patch += size;
        } else if (together) {
            mps_take(layer, image, (line + (size_t)left) * (size_t)c->channels, size, patch);
            patch += size;
        } else {
            for (int kx = 0, sx = left; kx < c->kernel_width; kx++, sx += c->dilation_x) {
                if (sx < 0 || sx >= c->width)
                    mps_fill_bytes(patch, inputs, zero);
                else
                    mps_take(layer, image,
                             (line + (size_t)sx) * (size_t)c->channels + (size_t)channel, inputs,
                             patch);
                patch += inputs;
            }
        }
    }
}

/* Output columns (or lines) that see no padding: first ... end - 1. */
typedef struct {
    int first, end;
} range;

static range inside_of(int padding, int stride, int span, int length, int count) {
    range r = {(padding + stride - 1) / stride, 0};
    if (length + padding >= span)
        r.end = mps_at_most((length + padding - span) / stride + 1, count);
    return r;
}

/* Patches of `positions` positions from (*y, *x) on, which are moved, `row` bytes apart. Those in
   the midst of an image of bytes, whose lines are pieces each, are copied at once. */
static void gather_block(const mps_convolution *c, const void *image, int *y, int *x, int channel,
                         int inputs, int positions, int8_t *patches, int row) {
    const int size = c->kernel_width * inputs, flip = c->layer.offset;
    const ptrdiff_t line = (ptrdiff_t)c->width * c->channels, below = c->dilation_y * line;
    const ptrdiff_t beside = (ptrdiff_t)c->stride_x * c->channels;
    const range rows = inside_of(c->top, c->stride_y, (c->kernel_height - 1) * c->dilation_y + 1,
                                 c->height, c->output_height);
    range columns = inside_of(c->left, c->stride_x, c->kernel_width, c->width, c->output_width);
    if (c->layer.input_type != MPS_U8 || c->dilation_x != 1 || inputs != c->channels)
        columns.end = 0;
    while (positions > 0) {
        if (*y < rows.first || *y >= rows.end || *x < columns.first || *x >= columns.end) {
            gather(c, image, *y, *x, channel, inputs, patches);
            patches += row;
            positions--, ++*x;
        } else {
            const int some = mps_at_most(positions, columns.end - *x);
            const uint8_t *from = (const uint8_t *)image + (*y * c->stride_y - c->top) * line +
                                  (*x * c->stride_x - c->left) * c->channels;
            for (int p = some; p > 0; p--, from += beside, patches += row) {
                const uint8_t *piece = from;
                int8_t *to = patches;
                for (int ky = c->kernel_height; ky > 0; ky--, piece += below, to += size)
                    mps_copy(piece, size, flip, to);
            }
            positions -= some, *x += some;
        }
        if (*x == c->output_width)
            *x = 0, ++*y;
    }
}

static work begin(const mps_layer *layer, int first, int outputs, int terms, void *scratch,
                  const void *addend, void *output, int8_t **patches) {
    work w;
    w.layer = layer, w.first = first, w.outputs = outputs, w.terms = terms;
    w.addend = addend, w.output = output;
    w.factors = mps_factors_of(layer, first, outputs, scratch);
    w.unpacked = w.factors.shifts + (outputs + MPS_LANES - 1) / MPS_LANES * MPS_LANES;
    w.usual = mps_is_usual(layer);
    *patches = w.unpacked;
    if (layer->bits < 8)
        *patches += MPS_LANES * (terms > CHUNK ? APART : terms) + 8 + MPS_UNPACKED_SLACK;
    if (layer->sum)
        w.parts = mps_parts_of(layer->sum);
    return w;
}

void mps_convolve_patches(const mps_convolution *c, void *scratch, const void *input,
                          const void *addend, void *output) {
    const int outputs = c->outputs / c->groups, inputs = c->channels / c->groups;
    const int terms = inputs * c->kernel_height * c->kernel_width;
    const int count = c->output_height * c->output_width;
    const int points = terms == c->channels && count == c->height * c->width && c->top == 0 &&
                       c->left == 0 && c->stride_y == 1 && c->stride_x == 1;
    const int in_place = points && c->layer.offset == 0 && c->layer.input_type == MPS_U8;
    const int row = points || terms > SHORT ? terms : terms > SHORT / 2 ? SHORT : SHORT / 2;
    for (int group = 0; group < c->groups; group++) {
        int8_t *patches;
        const work w =
            begin(&c->layer, group * outputs, outputs, terms, scratch, addend, output, &patches);
        int y = 0, x = 0;
        if (row > terms)
            mps_fill_bytes(patches, c->block * row, 0);
        for (int first = 0, some; first < count; first += some) {
            const size_t at = (size_t)first * (size_t)c->outputs;
            const int8_t *block = patches;
            some = mps_at_most(c->block, count - first);
            if (in_place) {
                block = (const int8_t *)input + (size_t)first * (size_t)terms;
            } else if (points) {
                mps_take(&c->layer, input, (size_t)first * (size_t)terms, some * terms, patches);
            } else {
                gather_block(c, input, &y, &x, group * inputs, inputs, some, patches, row);
            }
            multiply(&w, block, row, some, at, (size_t)c->outputs);
        }
    }
}

void mps_multiply_patches(const mps_linear *l, void *scratch, const void *input, const void *addend,
                          void *output) {
    const mps_layer *layer = &l->layer;
    const int in_place = layer->offset == 0 && layer->input_type == MPS_U8;
    int8_t *patches;
    const work w = begin(layer, 0, l->outputs, l->inputs, scratch, addend, output, &patches);
    for (int first = 0, some; first < l->rows; first += some) {
        const size_t at = (size_t)first * (size_t)l->inputs;
        some = mps_at_most(l->block, l->rows - first);
        if (!in_place)
            mps_take(layer, input, at, some * l->inputs, patches);
        multiply(&w, in_place ? (const int8_t *)input + at : patches, l->inputs, some,
                 (size_t)first * (size_t)l->outputs, (size_t)l->outputs);
    }
}
