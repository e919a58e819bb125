/* Sums of products for one type of codes and of sums; layers.c includes this file once for each.
   INPUT(layer, p, i) reads code i of the input p, SUM is the type of the sums, NAME(x) the name of
   function x. No partial sum overflows: the export has proven a bound. */

/* Sum of weights[i] * (code at + i - zero). */
static SUM NAME(dot)(const mps_layer *layer, const int16_t *weights, const unsigned char *codes,
                     size_t at, int count) {
    const SUM zero = layer->input_zero;
    SUM sum = 0;
    for (int i = 0; i < count; i++)
        sum += weights[i] * ((SUM)INPUT(layer, codes, at + (size_t)i) - zero);
    return sum;
}

/* sums[x] += the weight * (code - zero) of column x * stride, for `columns` columns. */
static void NAME(tap)(const mps_layer *layer, SUM weight, const unsigned char *codes, size_t at,
                      int stride, int columns, SUM *sums) {
    const SUM zero = layer->input_zero;
    for (int x = 0; x < columns; x++, at += (size_t)stride)
        sums[x] += weight * ((SUM)INPUT(layer, codes, at) - zero);
}

/* One output channel at `columns` places of line y, from x on; its weights are [ky][kx][channel].
   A padded place adds nothing. */
static void NAME(line)(const mps_convolution *c, const unsigned char *image, int output, int y,
                       int x, int columns, SUM *sums) {
    const int inputs = c->channels / c->groups;
    const int terms = c->kernel_height * c->kernel_width * inputs;
    const int first = output / (c->outputs / c->groups) * inputs;
    for (int i = 0; i < columns; i++)
        sums[i] = c->layer.base ? c->layer.base[output] : 0;
    for (int ky = 0; ky < c->kernel_height; ky++) {
        const int sy = y * c->stride_y + ky * c->dilation_y - c->top;
        if (sy < 0 || sy >= c->height)
            continue;
        for (int kx = 0; kx < c->kernel_width; kx++) {
            /* place x reads column x * stride + shift, which must lie in the image */
            const int shift = kx * c->dilation_x - c->left, last = c->width - 1 - shift;
            int from = shift >= 0 ? 0 : (-shift + c->stride_x - 1) / c->stride_x;
            int to = last < 0 ? 0 : last / c->stride_x + 1;
            size_t place;
            if (from < x)
                from = x;
            if (to > x + columns)
                to = x + columns;
            if (from >= to)
                continue;
            place = ((size_t)sy * (size_t)c->width + (size_t)(from * c->stride_x + shift)) *
                        (size_t)c->channels +
                    (size_t)first;
            for (int channel = 0; channel < inputs; channel++) {
                const size_t at = (size_t)output * (size_t)terms +
                                  (size_t)((ky * c->kernel_width + kx) * inputs + channel);
                NAME(tap)(&c->layer, mps_weight(c->layer.weights, c->layer.bits, at), image,
                          place + (size_t)channel, c->stride_x * c->channels, to - from,
                          sums + (from - x));
            }
        }
    }
}

#undef INPUT
#undef SUM
#undef NAME
