/* Sums of products for one type of codes and of sums; layers.c includes this file once for each.
   INPUT(p, i) reads code i at the byte pointer p, WIDTH is its size, SUM the type of the sums,
   NAME(x) the name of function x, EIGHTS a start of a row that is done faster (or 0). No partial sum overflows: the export has proven a bound. */

/* One output channel over a tile of `rows` x `columns` places: sums of weight * (code - zero).
   A padded place adds nothing. Every weight is unpacked once for the whole tile. */
static void NAME(tile)(const mps_convolution *c, const unsigned char *image, int output, int row,
                       int rows, int column, int columns, SUM *sums) {
    const int inputs = c->channels / c->groups;
    const int first = output / (c->outputs / c->groups) * inputs;
    const size_t places = (size_t)c->kernel_height * (size_t)c->kernel_width;
    const size_t plane = (size_t)c->height * (size_t)c->width;
    const SUM zero = c->layer.input_zero;
    const SUM bias = c->layer.bias ? c->layer.bias[output] : 0;
    for (int i = 0; i < rows * columns; i++) sums[i] = bias;
    for (int ky = 0; ky < c->kernel_height; ky++) {
        for (int kx = 0; kx < c->kernel_width; kx++) {
            /* output x reads source column x * stride + shift, which must lie in the image */
            const int shift = kx * c->dilation_x - c->left, last = c->width - 1 - shift;
            int from = shift >= 0 ? 0 : (-shift + c->stride_x - 1) / c->stride_x;
            int to = last < 0 ? 0 : last / c->stride_x + 1;
            if (from < column) from = column;
            if (to > column + columns) to = column + columns;
            if (from >= to) continue;
            for (int channel = 0; channel < inputs; channel++) {
                const size_t at = ((size_t)output * (size_t)inputs + (size_t)channel) * places;
                const SUM weight = mps_weight(c->layer.weights, c->layer.bits,
                                              at + (size_t)(ky * c->kernel_width + kx));
                const unsigned char *source = image + (size_t)(first + channel) * plane * WIDTH;
                if (weight == 0) continue;
                for (int y = 0; y < rows; y++) {
                    const int sy = (row + y) * c->stride_y + ky * c->dilation_y - c->top;
                    SUM *line = sums + y * columns + (from - column);
                    const unsigned char *codes;
                    if (sy < 0 || sy >= c->height) continue;
                    codes = source + ((size_t)sy * (size_t)c->width +
                                      (size_t)(from * c->stride_x + shift)) * WIDTH;
                    if (c->stride_x == 1) {
                        for (int x = EIGHTS(line, codes, weight, zero, to - from); x < to - from; x++)
                            line[x] += weight * ((SUM)INPUT(codes, x) - zero);
                    } else {
                        for (int x = 0; x < to - from; x++)
                            line[x] += weight * ((SUM)INPUT(codes, x * c->stride_x) - zero);
                    }
                }
            }
        }
    }
}

/* Sum of weights[i] * (code i - zero). */
static SUM NAME(dot)(const int16_t *weights, const unsigned char *codes, int count, SUM zero) {
    SUM sum = 0;
    for (int i = 0; i < count; i++) sum += weights[i] * ((SUM)INPUT(codes, i) - zero);
    return sum;
}

#undef EIGHTS
#undef INPUT
#undef WIDTH
#undef SUM
#undef NAME
