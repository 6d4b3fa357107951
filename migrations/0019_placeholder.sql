-- Holds the number 0019 until the file that it belongs to arrives.
SELECT 1;
