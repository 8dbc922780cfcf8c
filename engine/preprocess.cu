// From decoded images of any size to the network's input, with the very bytes of Pillow's resize.
//
//     resize_first  ──▶  resize_second  ──▶  place_views
//
// A batch lies in one buffer, `staging`: an Image per place, then what the images refer to by byte
// offsets, see staging.py. `temp` holds what a pass leaves for the next. Every kernel takes the
// same arguments and runs on a grid of (any number, images) blocks; blockIdx.y is the image.
//
// Pillow resizes along one axis at a time, with 8 bits in between, and which one comes first
// depends on the size (coefficients.py). An axis that keeps its length has no pass. There is no
// floating point here: weights are multiples of 2^-22, and sums of their products with bytes fit
// 32 bits.
//
// Threads of a block share a row and write adjacent bytes, so that nothing is divided but by 3, and
// offsets of rows are 64 bits wide.

const int PRECISION_BITS = 22;
const int HALF = 1 << (PRECISION_BITS - 1);
const int LINES = 4;  // rows that a thread of resize_columns sums at once, for each weight it reads
const int MAX_VIEWS = 10;

enum Axis { NEITHER, COLUMNS, ROWS };

// One pass over one image. Its table is int32 [2 + taps][outputs]: the first input of each output,
// how many there are, and their weights. Neighbouring threads read neighbouring numbers.
struct Pass {
  long long source;  // byte offset in staging (first pass) or temp (second pass)
  long long target;  // byte offset in temp
  long long table;   // byte offset in staging
  int axis;          // an Axis: which length it changes
  int rows;          // of the source
  int columns;       // of the source
  int outputs;       // the new length
};

struct Image {
  Pass first, second;
  long long pixels;          // byte offset of what the views are cut from: [rows][columns][3]
  int in_temp;               // 1: in temp; 0: in staging
  int rows, columns;         // 0: there is no image in this place
  int views, height, width;  // of the network's input
  int top[MAX_VIEWS];        // of each view, in those pixels; outside of them it is black
  int left[MAX_VIEWS];       // of its first column
  int step[MAX_VIEWS];       // to the next column: 1, or -1 where it is mirrored
};

static_assert(sizeof(Pass) == 40 && sizeof(Image) == 232, "as IMAGE in staging.py");

static __device__ __forceinline__ unsigned char to_byte(int sum) {
  sum >>= PRECISION_BITS;
  return (unsigned char)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

// Three neighbouring threads read three neighbouring bytes, the next three `columns / outputs`
// pixels further on. What is fetched in between their next taps find in the nearest cache.
static __device__ void resize_columns(const Pass& pass, const int* __restrict__ table,
                                      const unsigned char* __restrict__ source,
                                      unsigned char* __restrict__ target) {
  const int outputs = pass.outputs, last = pass.rows - 1;
  for (long long row = (long long)blockIdx.x * LINES; row <= last;
       row += (long long)gridDim.x * LINES) {
    // Beyond the last row the last is summed again, and not stored.
    const unsigned char* line[LINES];
    for (int each = 0; each < LINES; ++each) {
      const long long y = row + each < last ? row + each : last;
      line[each] = source + y * pass.columns * 3;
    }
    for (int byte = threadIdx.x; byte < outputs * 3; byte += blockDim.x) {
      const int x = byte / 3;
      const int taps = table[outputs + x];
      const int* weight = table + 2 * outputs + x;
      int at = table[x] * 3 + (byte - x * 3);
      int sum[LINES] = {HALF, HALF, HALF, HALF};
      for (int tap = 0; tap < taps; ++tap, at += 3, weight += outputs) {
        for (int each = 0; each < LINES; ++each) sum[each] += line[each][at] * *weight;
      }
      for (int each = 0; each < LINES && row + each <= last; ++each) {
        target[(row + each) * outputs * 3 + byte] = to_byte(sum[each]);
      }
    }
  }
}

static __device__ void resize_rows(const Pass& pass, const int* __restrict__ table,
                                   const unsigned char* __restrict__ source,
                                   unsigned char* __restrict__ target) {
  const int outputs = pass.outputs;
  const long long stride = (long long)pass.columns * 3;
  for (int y = blockIdx.x; y < outputs; y += gridDim.x) {
    const int taps = table[outputs + y];
    for (long long byte = threadIdx.x; byte < stride; byte += blockDim.x) {
      const int* weight = table + 2 * outputs + y;
      const unsigned char* at = source + table[y] * stride + byte;
      int sum = HALF;
      for (int tap = 0; tap < taps; ++tap, at += stride, weight += outputs) sum += *at * *weight;
      target[y * stride + byte] = to_byte(sum);
    }
  }
}

static __device__ void resize(const Pass& pass, const unsigned char* staging,
                              const unsigned char* source, unsigned char* temp) {
  const int* table = (const int*)(staging + pass.table);
  if (pass.axis == COLUMNS) {
    resize_columns(pass, table, source + pass.source, temp + pass.target);
  } else if (pass.axis == ROWS) {
    resize_rows(pass, table, source + pass.source, temp + pass.target);
  }
}

extern "C" __global__ void resize_first(const unsigned char* __restrict__ staging,
                                        unsigned char* __restrict__ temp, unsigned char*) {
  resize(((const Image*)staging)[blockIdx.y].first, staging, staging, temp);
}

extern "C" __global__ void resize_second(const unsigned char* __restrict__ staging,
                                         unsigned char* __restrict__ temp, unsigned char*) {
  resize(((const Image*)staging)[blockIdx.y].second, staging, temp, temp);
}

// `output` is uint8 [images * views][height][width][3]; every byte of it is written.
extern "C" __global__ void place_views(const unsigned char* __restrict__ staging,
                                       unsigned char* __restrict__ temp,
                                       unsigned char* __restrict__ output) {
  const Image& image = ((const Image*)staging)[blockIdx.y];
  const unsigned char* pixels = (image.in_temp ? temp : staging) + image.pixels;
  const int rows = image.views * image.height, stride = image.width * 3;
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    const int view = row / image.height;
    const int y = row - view * image.height + image.top[view];
    const bool inside = y >= 0 && y < image.rows;
    const long long line = (long long)y * image.columns * 3;
    unsigned char* target = output + ((long long)blockIdx.y * rows + row) * stride;
    for (int byte = threadIdx.x; byte < stride; byte += blockDim.x) {
      const int place = byte / 3;
      const int x = image.left[view] + image.step[view] * place;
      const bool seen = inside && x >= 0 && x < image.columns;
      target[byte] = seen ? pixels[line + x * 3 + (byte - place * 3)] : 0;
    }
  }
}
