"""What an archive holds, beside what the vendor lists."""
