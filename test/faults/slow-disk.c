/* Loaded before redis-server (LD_PRELOAD): a disk that takes three seconds to write. */
#include <sys/syscall.h>
#include <unistd.h>

int fdatasync(int fd) {
  sleep(3);
  return syscall(SYS_fdatasync, fd);
}
