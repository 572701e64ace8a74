// A simulated torch accelerator. Its memory is host memory and its kernels are the CPU's; what it
// keeps as CUDA does is the bookkeeping: segments, blocks, statistics, errors, streams and lazy init.
// Control functions for tests are the extern "C" ones at the end.

#include <ATen/EmptyTensor.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_local_scalar_dense_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <list>
#include <mutex>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace {

using c10::Device;
using c10::DeviceIndex;
using c10::DeviceType;
using c10::Stream;
using at::Tensor;
using Stats = c10::CachingDeviceAllocator::DeviceStats;
using c10::CachingAllocator::format_size;
using c10::CachingAllocator::StatArray;

constexpr DeviceType kSim = DeviceType::PrivateUse1;
constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kRound = 512; // every block is a multiple of this
constexpr size_t kSmall = kMiB; // the largest request that the small pool serves
constexpr size_t kSmallSegment = 2 * kMiB;
constexpr size_t kLargeSegment = 20 * kMiB;
constexpr size_t kOwnSegment = 10 * kMiB; // from here on a request gets a segment of its own size
constexpr size_t kRoundLarge = 2 * kMiB;
constexpr size_t kCapacity = 8192 * kMiB;

// The codes are CUDA's, so that a reader of error_code sees familiar ones.
constexpr int32_t kInvalidDevice = 101;
constexpr int32_t kDeviceLost = 719;

size_t round_up(size_t size, size_t unit) {
  return (size + unit - 1) / unit * unit;
}

[[noreturn]] void raise_accelerator_error(int32_t code, const std::string& message) {
  throw c10::AcceleratorError({__func__, __FILE__, static_cast<uint32_t>(__LINE__)}, code, "simgpu error: " + message);
}

// ---- The state of the devices

struct Block {
  DeviceIndex device;
  bool small;
  char* ptr;
  size_t size;
  size_t requested = 0;
  int64_t due_us = 0; // when a late free takes effect
  bool other_streams = false;
  Block* prev = nullptr; // neighbours in the same segment
  Block* next = nullptr;

  bool is_split() const {
    return prev != nullptr || next != nullptr;
  }
};

struct BySize {
  bool operator()(const Block* a, const Block* b) const {
    return a->size != b->size ? a->size < b->size : a->ptr < b->ptr;
  }
};

struct DeviceState {
  Stats stats;
  std::set<Block*, BySize> free_small;
  std::set<Block*, BySize> free_large;
  std::list<Block*> late; // freed by their owner, but still counted
  std::list<Block*> in_flight; // freed, but recorded on another stream
  size_t capacity = kCapacity;
  size_t held = 0; // by someone else
  int64_t late_us = 0;
  bool lost = false;
  bool lost_with_stats = false;
  bool used = false;

  std::set<Block*, BySize>& pool(bool small) {
    return small ? free_small : free_large;
  }
  size_t reserved() const {
    return static_cast<size_t>(stats.reserved_bytes[0].current);
  }
  size_t available() const {
    const size_t taken = held + reserved();
    return taken < capacity ? capacity - taken : 0;
  }
};

int devices_wanted() {
  const char* text = std::getenv("GPUCLEAN_SIMGPU_DEVICES");
  return text == nullptr ? 2 : std::clamp(std::atoi(text), 0, 16);
}

struct World {
  std::mutex mutex;
  std::vector<DeviceState> devices{static_cast<size_t>(devices_wanted())};
  std::unordered_map<void*, Block*> live;
  std::atomic<bool> initialized{false};
  std::atomic<bool> bad_fork{false};
  std::atomic<int64_t> init_count{0};
  std::atomic<int64_t> synchronize_count{0};
  std::atomic<int64_t> empty_cache_count{0};
  std::atomic<int64_t> advanced_us{0};

  int64_t now_us() const {
    const auto since = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::microseconds>(since).count() + advanced_us;
  }
};

World& world() {
  static World* the = new World; // never destroyed: tensors may outlive static destruction
  return *the;
}

thread_local DeviceIndex current_device = 0;
thread_local std::unordered_map<DeviceIndex, c10::StreamId> current_streams;

DeviceIndex device_count() {
  return static_cast<DeviceIndex>(world().devices.size());
}

DeviceState& state_of(DeviceIndex index) {
  if (index < 0 || index >= device_count()) {
    raise_accelerator_error(kInvalidDevice, c10::str("invalid device ordinal ", int(index)));
  }
  return world().devices[index];
}

void initialize() {
  TORCH_CHECK(
      !world().bad_fork,
      "Cannot re-initialize simgpu in forked subprocess. To use simgpu with multiprocessing, "
      "you must use the 'spawn' start method");
  if (!world().initialized.exchange(true)) {
    ++world().init_count;
  }
}

// Stands before everything that reaches the device, as the driver's own error check does.
DeviceState& reach(DeviceIndex index) {
  DeviceState& state = state_of(index);
  initialize();
  if (state.lost) {
    raise_accelerator_error(kDeviceLost, c10::str("device ", int(index), " is lost"));
  }
  return state;
}

// ---- The caching allocator

void up(StatArray& stat, bool small, size_t amount) {
  stat[0].increase(amount);
  stat[small ? 1 : 2].increase(amount);
}

void down(StatArray& stat, bool small, size_t amount) {
  stat[0].decrease(amount);
  stat[small ? 1 : 2].decrease(amount);
}

// A free block that shares its segment cannot be given back; CUDA counts those apart.
void shelve(DeviceState& state, Block* block) {
  state.pool(block->small).insert(block);
  if (block->is_split()) {
    up(state.stats.inactive_split, block->small, 1);
    up(state.stats.inactive_split_bytes, block->small, block->size);
  }
}

void unshelve(DeviceState& state, Block* block) {
  state.pool(block->small).erase(block);
  if (block->is_split()) {
    down(state.stats.inactive_split, block->small, 1);
    down(state.stats.inactive_split_bytes, block->small, block->size);
  }
}

void absorb_next(Block* block) {
  Block* next = block->next;
  block->size += next->size;
  block->next = next->next;
  if (block->next != nullptr) {
    block->next->prev = block;
  }
  delete next;
}

// No work is on it any more: it becomes free, together with its free neighbours.
void retire(DeviceState& state, Block* block) {
  down(state.stats.active, block->small, 1);
  down(state.stats.active_bytes, block->small, block->size);
  down(state.stats.requested_bytes, block->small, block->requested);
  auto& pool = state.pool(block->small);
  if (block->next != nullptr && pool.count(block->next) != 0) {
    unshelve(state, block->next);
    absorb_next(block);
  }
  if (block->prev != nullptr && pool.count(block->prev) != 0) {
    block = block->prev;
    unshelve(state, block);
    absorb_next(block);
  }
  shelve(state, block);
}

void drop(DeviceState& state, Block* block) {
  down(state.stats.allocation, block->small, 1);
  down(state.stats.allocated_bytes, block->small, block->size);
  if (block->other_streams) {
    state.in_flight.push_back(block);
  } else {
    retire(state, block);
  }
}

// Late frees have no thread of their own: whoever looks first finishes those that are due.
void finish_late_frees(DeviceState& state) {
  if (state.late.empty()) {
    return;
  }
  const int64_t now = world().now_us();
  for (auto it = state.late.begin(); it != state.late.end();) {
    Block* block = *it;
    if (block->due_us <= now) {
      it = state.late.erase(it);
      drop(state, block);
    } else {
      ++it;
    }
  }
}

void finish_in_flight(DeviceState& state) {
  for (Block* block : state.in_flight) {
    retire(state, block);
  }
  state.in_flight.clear();
}

// Tells the stand-in for NVIDIA's driver (tests/fakenvml) what this process has, where a test wants that.
void publish() {
  const char* folder = std::getenv("GPUCLEAN_SIMGPU_USE");
  if (folder == nullptr) {
    return;
  }
  const std::string name = c10::str(folder, "/use.", getpid());
  const std::string unfinished = c10::str(folder, "/new.", getpid());
  {
    std::ofstream file(unfinished);
    for (size_t index = 0; index < world().devices.size(); ++index) {
      file << index << ' ' << world().devices[index].reserved() << '\n';
    }
  }
  std::rename(unfinished.c_str(), name.c_str());
}

void release_cached(DeviceState& state) {
  for (const bool small : {true, false}) {
    auto& pool = state.pool(small);
    for (auto it = pool.begin(); it != pool.end();) {
      Block* block = *it;
      if (block->is_split()) {
        ++it;
        continue;
      }
      it = pool.erase(it);
      down(state.stats.segment, small, 1);
      down(state.stats.reserved_bytes, small, block->size);
      ++state.stats.num_device_free;
      std::free(block->ptr);
      delete block;
    }
  }
  publish();
}

Block* new_segment(DeviceState& state, DeviceIndex index, bool small, size_t size) {
  const size_t bytes = small ? kSmallSegment : size < kOwnSegment ? kLargeSegment : round_up(size, kRoundLarge);
  if (bytes > state.available()) {
    ++state.stats.num_alloc_retries;
    finish_in_flight(state);
    release_cached(state);
  }
  auto* memory = bytes > state.available() ? nullptr : static_cast<char*>(std::aligned_alloc(kRound, bytes));
  if (memory == nullptr) {
    ++state.stats.num_ooms;
    TORCH_CHECK_WITH(
        OutOfMemoryError, false,
        "simgpu out of memory. Tried to allocate ", format_size(bytes), ". GPU ", int(index),
        " has a total capacity of ", format_size(state.capacity), " of which ", format_size(state.available()),
        " is free. Other processes hold ", format_size(state.held), ". Of the allocated memory ",
        format_size(state.stats.allocated_bytes[0].current), " is allocated by PyTorch, and ",
        format_size(state.reserved() - state.stats.allocated_bytes[0].current),
        " is reserved by PyTorch but unallocated.");
  }
  ++state.stats.num_device_alloc;
  up(state.stats.segment, small, 1);
  up(state.stats.reserved_bytes, small, bytes);
  publish();
  return new Block{index, small, memory, bytes};
}

Block* take_block(DeviceState& state, DeviceIndex index, size_t requested) {
  const size_t size = round_up(requested, kRound);
  const bool small = size <= kSmall;
  auto& pool = state.pool(small);
  Block key{index, small, nullptr, size};
  auto it = pool.lower_bound(&key);
  Block* block = nullptr;
  if (it != pool.end()) {
    block = *it;
    unshelve(state, block);
  } else {
    block = new_segment(state, index, small, size);
  }
  const size_t rest = block->size - size;
  if (small ? rest >= kRound : rest > kSmall) { // else the block stays whole and counts at its full size
    auto* tail = new Block{index, small, block->ptr + size, rest};
    tail->prev = block;
    tail->next = block->next;
    if (tail->next != nullptr) {
      tail->next->prev = tail;
    }
    block->next = tail;
    block->size = size;
    shelve(state, tail);
  }
  block->requested = requested;
  block->other_streams = false;
  up(state.stats.allocation, small, 1);
  up(state.stats.active, small, 1);
  up(state.stats.allocated_bytes, small, block->size);
  up(state.stats.active_bytes, small, block->size);
  up(state.stats.requested_bytes, small, requested);
  return block;
}

void give_back(void* ptr) {
  if (ptr == nullptr) {
    return;
  }
  World& w = world();
  std::unique_lock lock(w.mutex);
  const auto found = w.live.find(ptr);
  TORCH_INTERNAL_ASSERT(found != w.live.end(), "simgpu: freed a pointer that it never handed out");
  Block* block = found->second;
  w.live.erase(found);
  DeviceState& state = w.devices[block->device];
  const Device device(kSim, block->device);
  const auto size = static_cast<int64_t>(block->size);
  finish_late_frees(state);
  if (state.late_us > 0) {
    block->due_us = w.now_us() + state.late_us;
    state.late.push_back(block);
  } else {
    drop(state, block);
  }
  const auto allocated = state.stats.allocated_bytes[0].current;
  const auto reserved = state.reserved();
  lock.unlock();
  c10::reportMemoryUsageToProfiler(ptr, -size, allocated, reserved, device);
}

struct SimAllocator final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t bytes) override {
    const DeviceIndex index = current_device;
    const Device device(kSim, index);
    World& w = world();
    std::unique_lock lock(w.mutex);
    DeviceState& state = reach(index);
    state.used = true;
    if (bytes == 0) {
      return {nullptr, nullptr, &give_back, device};
    }
    finish_late_frees(state);
    finish_in_flight(state);
    Block* block = take_block(state, index, bytes);
    w.live.emplace(block->ptr, block);
    const auto allocated = state.stats.allocated_bytes[0].current;
    const auto reserved = state.reserved();
    lock.unlock();
    c10::reportMemoryUsageToProfiler(block->ptr, block->size, allocated, reserved, device);
    return {block->ptr, block->ptr, &give_back, device};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &give_back;
  }
  void copy_data(void* dest, const void* src, size_t count) const override {
    default_copy_data(dest, src, count);
  }
  bool initialized() override {
    return world().initialized;
  }
  void emptyCache(c10::MempoolId_t /*pool*/) override {
    ++world().empty_cache_count;
    std::lock_guard lock(world().mutex);
    for (DeviceIndex index = 0; index < device_count(); ++index) {
      DeviceState& state = reach(index);
      finish_late_frees(state);
      finish_in_flight(state);
      release_cached(state);
    }
  }
  void recordStream(const c10::DataPtr& ptr, Stream stream) override {
    std::lock_guard lock(world().mutex);
    const auto found = world().live.find(ptr.get());
    if (found != world().live.end() && stream.id() != 0) { // blocks belong to the default stream
      found->second->other_streams = true;
    }
  }
  Stats getDeviceStats(DeviceIndex index) override {
    std::lock_guard lock(world().mutex);
    return readable(index).stats;
  }
  void resetAccumulatedStats(DeviceIndex index) override {
    std::lock_guard lock(world().mutex);
    Stats& stats = readable(index).stats;
    for (StatArray* array : arrays(stats)) {
      for (auto& stat : *array) {
        stat.reset_accumulated();
      }
    }
    stats.num_alloc_retries = stats.num_ooms = stats.num_device_alloc = stats.num_device_free = 0;
  }
  void resetPeakStats(DeviceIndex index) override {
    std::lock_guard lock(world().mutex);
    for (StatArray* array : arrays(readable(index).stats)) {
      for (auto& stat : *array) {
        stat.reset_peak();
      }
    }
  }
  // Not marked override: releases of torch before it was virtual compile too.
  std::pair<size_t, size_t> getMemoryInfo(DeviceIndex index) {
    std::lock_guard lock(world().mutex);
    DeviceState& state = reach(index);
    return {state.available(), state.capacity};
  }

 private:
  // The statistics are the process's own books, so reading them initializes nothing.
  static DeviceState& readable(DeviceIndex index) {
    TORCH_CHECK(
        world().initialized && index >= 0 && index < device_count(),
        "Allocator not initialized for device ", int(index), ": did you call init?");
    DeviceState& state = world().devices[index];
    if (state.lost && state.lost_with_stats) {
      raise_accelerator_error(kDeviceLost, c10::str("device ", int(index), " is lost"));
    }
    finish_late_frees(state);
    return state;
  }
  static std::array<StatArray*, 9> arrays(Stats& s) {
    return {
        &s.allocation, &s.segment, &s.active, &s.inactive_split, &s.allocated_bytes, &s.reserved_bytes,
        &s.active_bytes, &s.inactive_split_bytes, &s.requested_bytes};
  }
};

SimAllocator& allocator() {
  static auto* the = new SimAllocator;
  return *the;
}

// Pinned host memory: plain memory that answers is_pinned().
struct PinnedAllocator final : at::HostAllocator {
  static inline std::mutex mutex;
  static inline std::unordered_set<const void*> pinned;

  static void unpin(void* ptr) {
    std::lock_guard lock(mutex);
    pinned.erase(ptr);
    std::free(ptr);
  }
  static bool is_pinned(const void* ptr) {
    std::lock_guard lock(mutex);
    return pinned.count(ptr) != 0;
  }
  c10::DataPtr allocate(size_t bytes) override {
    void* ptr = std::aligned_alloc(kRound, round_up(std::max<size_t>(bytes, 1), kRound));
    TORCH_CHECK_WITH(OutOfMemoryError, ptr != nullptr, "simgpu: no host memory to pin");
    std::lock_guard lock(mutex);
    pinned.insert(ptr);
    return {ptr, ptr, &unpin, Device(DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &unpin;
  }
  void copy_data(void* dest, const void* src, size_t count) const override {
    default_copy_data(dest, src, count);
  }
  bool record_event(void*, void*, Stream) override {
    return true;
  }
  void empty_cache() override {}
  at::HostStats get_stats() override {
    return {};
  }
  void reset_accumulated_stats() override {}
  void reset_peak_stats() override {}
};

PinnedAllocator& pinned_allocator() {
  static auto* the = new PinnedAllocator;
  return *the;
}

// ---- Generators: each wraps one of the CPU's, because the CPU's kernels consume it

struct SimGenerator final : c10::GeneratorImpl {
  at::Generator host = at::detail::createCPUGenerator();

  explicit SimGenerator(DeviceIndex index)
      : GeneratorImpl(Device(kSim, index), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)) {}
  void set_current_seed(uint64_t seed) override {
    host.set_current_seed(seed);
  }
  void set_offset(uint64_t offset) override {
    host.set_offset(offset);
  }
  uint64_t get_offset() const override {
    return host.get_offset();
  }
  uint64_t current_seed() const override {
    return host.current_seed();
  }
  uint64_t seed() override {
    return host.seed();
  }
  void set_state(const c10::TensorImpl& state) override {
    host.unsafeGetGeneratorImpl()->set_state(state);
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return host.unsafeGetGeneratorImpl()->get_state();
  }
  SimGenerator* clone_impl() const override {
    auto* twin = new SimGenerator(device_.index());
    twin->host = host.clone();
    return twin;
  }
};

at::Generator& default_generator(DeviceIndex index) {
  static auto* all = [] {
    auto* made = new std::vector<at::Generator>;
    for (DeviceIndex i = 0; i < device_count(); ++i) {
      made->push_back(at::make_generator<SimGenerator>(i));
    }
    return made;
  }();
  state_of(index); // the check of the index
  return (*all)[index];
}

// ---- Devices, streams and events

void note_synchronize(DeviceIndex index) {
  ++world().synchronize_count;
  std::lock_guard lock(world().mutex);
  finish_in_flight(reach(index));
}

// Switching devices never fails on a lost one: autograd's threads do it outside of any handler.
struct SimGuard final : c10::impl::DeviceGuardImplInterface {
  DeviceType type() const override {
    return kSim;
  }
  Device exchangeDevice(Device device) const override {
    const Device before = getDevice();
    setDevice(device);
    return before;
  }
  Device getDevice() const override {
    return Device(kSim, current_device);
  }
  void setDevice(Device device) const override {
    if (device.has_index()) {
      state_of(device.index());
      current_device = device.index();
    }
  }
  void uncheckedSetDevice(Device device) const noexcept override {
    if (device.has_index()) {
      current_device = device.index();
    }
  }
  DeviceIndex deviceCount() const noexcept override {
    return device_count();
  }
  Stream getStream(Device device) const override {
    const DeviceIndex index = device.has_index() ? device.index() : current_device;
    const auto found = current_streams.find(index);
    return Stream(Stream::UNSAFE, Device(kSim, index), found == current_streams.end() ? 0 : found->second);
  }
  Stream getDefaultStream(Device device) const override {
    return Stream(Stream::DEFAULT, device.has_index() ? device : getDevice());
  }
  Stream getNewStream(Device device, int /*priority*/) const override {
    static std::atomic<c10::StreamId> last{0};
    return Stream(Stream::UNSAFE, device.has_index() ? device : getDevice(), ++last);
  }
  Stream getStreamFromGlobalPool(Device device, bool /*high*/) const override {
    return getNewStream(device, 0);
  }
  Stream exchangeStream(Stream stream) const override {
    const Stream before = getStream(stream.device());
    current_streams[stream.device_index()] = stream.id();
    return before;
  }
  bool queryStream(const Stream& stream) const override {
    reach(stream.device_index());
    return true;
  }
  void synchronizeStream(const Stream& stream) const override {
    note_synchronize(stream.device_index());
  }
  void synchronizeDevice(const DeviceIndex index) const override {
    note_synchronize(index < 0 ? current_device : index);
  }
  void record(void** event, const Stream& stream, const DeviceIndex, const c10::EventFlag) const override {
    reach(stream.device_index());
    if (*event == nullptr) {
      *event = new int64_t;
    }
    *static_cast<int64_t*>(*event) = world().now_us();
  }
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override {
    return true;
  }
  void synchronizeEvent(void*) const override {}
  void destroyEvent(void* event, const DeviceIndex) const noexcept override {
    delete static_cast<int64_t*>(event);
  }
  double elapsedTime(void* start, void* end, const DeviceIndex) const override {
    return static_cast<double>(*static_cast<int64_t*>(end) - *static_cast<int64_t*>(start)) / 1000.0;
  }
  void recordDataPtrOnStream(const c10::DataPtr& ptr, const Stream& stream) const override {
    allocator().recordStream(ptr, stream);
  }
#if __has_include(<c10/core/DeviceCapability.h>)
  c10::DeviceCapability getDeviceCapability(Device) const override {
    return {};
  }
#endif
};

struct SimHooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override {
    return true;
  }
  bool isAvailable() const override {
    return device_count() > 0;
  }
  void init() const override {
    initialize();
  }
  bool hasPrimaryContext(DeviceIndex index) const override {
    return state_of(index).used;
  }
  DeviceIndex deviceCount() const override {
    return device_count();
  }
  void setCurrentDevice(DeviceIndex index) const override {
    SimGuard().setDevice(Device(kSim, index));
  }
  DeviceIndex getCurrentDevice() const override {
    return current_device;
  }
  DeviceIndex exchangeDevice(DeviceIndex index) const override {
    return SimGuard().exchangeDevice(Device(kSim, index)).index();
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex index) const override {
    return exchangeDevice(index);
  }
  const at::Generator& getDefaultGenerator(DeviceIndex index) const override {
    return default_generator(index < 0 ? current_device : index);
  }
  at::Generator getNewGenerator(DeviceIndex index) const override {
    return at::make_generator<SimGenerator>(index < 0 ? current_device : index);
  }
  Device getDeviceFromPtr(void* data) const override {
    std::lock_guard lock(world().mutex);
    const auto found = world().live.find(data);
    TORCH_CHECK(found != world().live.end(), "simgpu: the pointer is no allocation of any device");
    return Device(kSim, found->second->device);
  }
  bool isPinnedPtr(const void* data) const override {
    return PinnedAllocator::is_pinned(data);
  }
  c10::Allocator* getPinnedMemoryAllocator() const override {
    return &pinned_allocator();
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t size) const override {
    const c10::DeviceGuard guard(storage.device());
    at::native::resize_bytes_cpu(storage.unsafeGetStorageImpl(), size); // allocates with the storage's own allocator
  }
};

// ---- Operators

Device resolve(std::optional<Device> device) {
  return device && device->has_index() ? *device : Device(kSim, current_device);
}

// The same memory as a CPU tensor, its lazy conjugate and negative bits included.
Tensor on_host(const Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_privateuseone()) {
    return tensor;
  }
  {
    std::lock_guard lock(world().mutex);
    reach(tensor.device().index());
  }
  const auto options = at::TensorOptions().dtype(tensor.dtype()).device(at::kCPU);
  Tensor host = at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(), options);
  host._set_conj(tensor.is_conj());
  host._set_neg(tensor.is_neg());
  return host;
}

Tensor empty(
    at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<Device> device,
    std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const c10::DeviceGuard guard(resolve(device));
  constexpr c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_generic(size, &allocator(), keys, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(
    at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<Device> device, std::optional<bool>) {
  const c10::DeviceGuard guard(resolve(device));
  constexpr c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_strided_generic(size, stride, &allocator(), keys, c10::dtype_or_default(dtype));
}

Tensor copy_from(const Tensor& self, const Tensor& dst, bool non_blocking) {
  on_host(dst).copy_(on_host(self), non_blocking);
  return dst;
}

const Tensor& resize(const Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat> format) {
  const c10::DeviceGuard guard(self.device());
  return at::native::resize_(self, size, format);
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& dst) {
  dst.resize_(self.sizes());
  return copy_from(self, dst, false);
}

Tensor& set_storage(
    Tensor& self, at::Storage source, int64_t offset, at::IntArrayRef size, at::IntArrayRef stride) {
  const c10::DeviceGuard guard(source.device());
  return at::native::set_storage_cpu_(self, std::move(source), offset, size, stride);
}

Tensor& set_empty(Tensor& self) {
  const c10::Storage none(c10::Storage::use_byte_size_t(), 0, allocator().allocate(0), &allocator(), true);
  return set_storage(self, none, 0, {0}, {});
}

at::Scalar local_scalar_dense(const Tensor& self) {
  return at::native::_local_scalar_dense_cpu(on_host(self));
}

void record_stream(Tensor& self, Stream stream) {
  allocator().recordStream(self.storage().data_ptr(), stream);
}

Tensor convolution(
    const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding,
    int64_t groups) {
  const std::optional<Tensor> host_bias = bias ? std::optional(on_host(*bias)) : std::nullopt;
  return at::convolution(
             on_host(input), on_host(weight), host_bias, stride, padding, dilation, transposed, output_padding, groups)
      .to(input.device());
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& grad, const Tensor& input, const Tensor& weight, at::IntArrayRef stride, at::IntArrayRef padding,
    at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding, int64_t groups,
    std::array<bool, 3> mask) {
  const std::vector<int64_t> bias_size{grad.size(1)};
  auto [a, b, c] = at::convolution_backward(
      on_host(grad), on_host(input), on_host(weight), bias_size, stride, padding, dilation, transposed, output_padding,
      groups, mask);
  const auto back = [&](const Tensor& t) { return t.defined() ? t.to(input.device()) : t; };
  return {back(a), back(b), back(c)};
}

// Random operators draw from the device's generator: the CPU's kernels refuse ours, and would
// quietly use the CPU's default one where none is given.
void replace_generators(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& arguments = op.schema().arguments();
  auto values = torch::jit::last(*stack, arguments.size());
  std::vector<size_t> places;
  DeviceIndex index = current_device;
  for (const size_t i : c10::irange(arguments.size())) {
    const auto& value = values[i];
    if (value.isTensor() && value.toTensor().defined() && value.toTensor().is_privateuseone()) {
      index = value.toTensor().device().index();
    }
    auto type = arguments[i].real_type();
    if (const auto optional = type->cast<c10::OptionalType>()) {
      type = optional->getElementType();
    }
    if (type->kind() == c10::TypeKind::GeneratorType) {
      places.push_back(i);
    }
  }
  for (const size_t i : places) {
    auto& value = (*stack)[stack->size() - arguments.size() + i];
    if (value.isGenerator() && value.toGenerator().device().type() != kSim) {
      continue;
    }
    const at::Generator ours = value.isGenerator() ? value.toGenerator() : default_generator(index);
    value = static_cast<SimGenerator*>(ours.unsafeGetGeneratorImpl())->host;
  }
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  replace_generators(op, stack);
  at::native::cpu_fallback(op, stack);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &local_scalar_dense);
  m.impl("resize_", &resize);
  m.impl("set_", &set_empty);
  m.impl("set_.source_Storage", &at::native::set_);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Tensor", &at::native::set_tensor_);
  m.impl("record_stream", &record_stream);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("unfold", &at::native::unfold);
  m.impl("view_as_real", &at::native::view_as_real);
  m.impl("view_as_complex", &at::native::view_as_complex);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("convolution_overrideable", &convolution);
  m.impl("convolution_backward_overrideable", &convolution_backward);
}

// Without these, resolving the bit copies the tensor, which resolves the bit, until the stack ends.
TORCH_LIBRARY_IMPL(aten, Conjugate, m) {
  m.impl("_copy_from", torch::CppFunction::makeFallthrough());
}
TORCH_LIBRARY_IMPL(aten, Negative, m) {
  m.impl("_copy_from", torch::CppFunction::makeFallthrough());
}

// Seeding goes around init, as torch.manual_seed must not initialize a device.
TORCH_LIBRARY(simgpu, m) {
  m.def("manual_seed(int device, int seed) -> ()", [](int64_t device, int64_t seed) {
    default_generator(static_cast<DeviceIndex>(device)).set_current_seed(static_cast<uint64_t>(seed));
  });
  m.def("initial_seed(int device) -> int", [](int64_t device) {
    return static_cast<int64_t>(default_generator(static_cast<DeviceIndex>(device)).current_seed());
  });
  m.def("get_rng_state(int device) -> Tensor", [](int64_t device) {
    return Tensor(default_generator(static_cast<DeviceIndex>(device)).unsafeGetGeneratorImpl()->get_state());
  });
  m.def("set_rng_state(int device, Tensor state) -> ()", [](int64_t device, const Tensor& state) {
    default_generator(static_cast<DeviceIndex>(device)).set_state(state);
  });
}

// A fork may come while another thread holds the lock; the child needs it free and must not touch the device.
void before_fork() {
  world().mutex.lock();
}
void after_fork_in_parent() {
  world().mutex.unlock();
}
void after_fork_in_child() {
  world().mutex.unlock();
  world().bad_fork = world().initialized.load();
}

const bool registered = [] {
  c10::SetAllocator(kSim, &allocator());
  c10::impl::registerDeviceGuard(kSim, new SimGuard);
  at::RegisterPrivateUse1HooksInterface(new SimHooks);
  at::setHostAllocator(kSim, &pinned_allocator());
  pthread_atfork(&before_fork, &after_fork_in_parent, &after_fork_in_child);
  return true;
}();

} // namespace

// ---- Control, called through ctypes; the caller checks the device index

extern "C" {

int64_t simgpu_device_count() {
  return device_count();
}
// Returns false, and initializes nothing, in a child forked after the parent's init.
bool simgpu_init() {
  if (world().bad_fork) {
    return false;
  }
  initialize();
  return true;
}
bool simgpu_is_initialized() {
  return world().initialized;
}
bool simgpu_is_in_bad_fork() {
  return world().bad_fork;
}
int64_t simgpu_init_count() {
  return world().init_count;
}
int64_t simgpu_synchronize_count() {
  return world().synchronize_count;
}
int64_t simgpu_empty_cache_count() {
  return world().empty_cache_count;
}
void simgpu_set_capacity(int64_t device, int64_t bytes) {
  std::lock_guard lock(world().mutex);
  world().devices[device].capacity = static_cast<size_t>(bytes);
}
void simgpu_hold(int64_t device, int64_t bytes) {
  std::lock_guard lock(world().mutex);
  world().devices[device].held = static_cast<size_t>(bytes);
}
void simgpu_lose(int64_t device, bool with_stats) {
  std::lock_guard lock(world().mutex);
  world().devices[device].lost = true;
  world().devices[device].lost_with_stats = with_stats;
}
void simgpu_revive(int64_t device) {
  std::lock_guard lock(world().mutex);
  world().devices[device].lost = false;
}
void simgpu_late_free(int64_t device, int64_t microseconds) {
  std::lock_guard lock(world().mutex);
  world().devices[device].late_us = microseconds;
}
void simgpu_advance(int64_t microseconds) {
  world().advanced_us += microseconds;
}
void simgpu_reset() {
  std::lock_guard lock(world().mutex);
  for (DeviceState& state : world().devices) {
    state.capacity = kCapacity;
    state.held = 0;
    state.lost = false;
    state.late_us = 0;
    for (Block* block : std::exchange(state.late, {})) {
      drop(state, block);
    }
  }
  world().synchronize_count = 0;
  world().empty_cache_count = 0;
}

} // extern "C"
